// The token, for as long as this tab is open. In sessionStorage and nowhere else: no cookie, so nothing is sent by
// itself and no other site can act with it.

const KEY = "pinrail-token";

export const token = () => sessionStorage.getItem(KEY);
export const keep = (value) => sessionStorage.setItem(KEY, value);
export const forget = () => sessionStorage.removeItem(KEY);

/** A link may bring a token behind the `#`, which no server gets to see. It is taken out of the address bar at once. */
export function takeFromAddress() {
  const found = /^#token=([^&]+)$/.exec(location.hash);
  if (!found) return;
  if (!token()) keep(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname);
}
