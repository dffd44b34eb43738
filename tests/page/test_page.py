"""What an operator sees and does on the page, in a real browser. In none of these may anything go wrong unseen: each
tab is watched for errors, warnings and violations of its policy.
"""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from barrier.store import audit
from tests.barrier.http import TOKENS
from tests.page.conftest import FAILED, PATIENCE, PHONE, Open, Site

expect.set_options(timeout=PATIENCE)

LONG = "2024.11.30-release-candidate-of-the-winter-sale_0123456789abcdef"[:63]


def step(page: Page, name: str) -> str:
    """What is said of a step of the rollout: ``now``, ``done``, ``to come`` ..."""
    item = page.get_by_role("list", name="Steps").get_by_role("listitem").filter(has_text=name)
    return str(item.inner_text())


def test_a_token_opens_it_and_stays_in_the_tab(small: Site, open_tab: Open) -> None:
    tab = open_tab(small)
    tab.forgiven = FAILED
    page = tab.page
    page.goto(small.url)
    page.get_by_label("Token", exact=True).fill("guess")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("alert")).to_have_text("the token is not known here")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.get_by_label("Token", exact=True).fill(TOKENS["read"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="shop", level=1)).to_be_visible()
    expect(page.get_by_text("A is the default, and the only version served.")).to_be_visible()
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    assert TOKENS["read"] not in page.content() + page.url
    page.reload()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    page.get_by_role("button", name="Forget token").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    expect(page.get_by_text("host-1")).to_have_count(0)
    assert {url.split("/")[2] for url in tab.requested} == {small.url.split("/")[2]}  # nothing from elsewhere

    page.goto(f"{small.url}/#token={TOKENS['deploy']}")  # what `pinrail page` prints
    expect(page.locator("#who")).to_contain_text("deployer")
    assert "token" not in page.url


def test_a_rollout_is_seen_live_and_who_is_missing_by_name(small: Site, open_tab: Open) -> None:
    page = open_tab(small).sign_in("read")
    page.evaluate("window.sameDocument = true")
    small.fleet.deploy("B")
    expect(page.get_by_text("B is the default; A is served beside it.")).to_be_visible()
    expect(page.get_by_role("region", name="Versions")).to_contain_text("3 hosts, healthy at 2 of 2 edges")
    expect(page.get_by_role("region", name="Edges").get_by_role("row", name=re.compile("edge-1"))).to_contain_text(
        "3/3"
    )

    edge = small.fleet.threads[1]
    edge.drains = False  # type: ignore[attr-defined]
    number = small.fleet.begin("C", reason="the new cards").number
    rollout = page.get_by_role("region", name=f"Rollout {number}")
    expect(rollout.get_by_text("does not move")).to_be_visible()
    expect(rollout).to_contain_text("edge-2: requests left on plans older than epoch")
    expect(rollout).to_contain_text("1 of 2 edges have drained the old plan")
    expect(rollout).to_contain_text("the new cards")
    expect(page.get_by_role("region", name="Barriers")).to_contain_text(
        re.compile(r"drained-\d+.*not yet.*edge-2", re.S)
    )
    assert "now" in step(page, "Withdraw")
    assert "to come" in step(page, "Install")
    expect(page.get_by_role("status").filter(has_text="has stalled")).to_have_count(1)
    assert page.title() == "stalled: shop – Pinrail"

    edge.drains = True  # type: ignore[attr-defined]
    edge.wake()
    expect(page.get_by_text("C is the default; B is served beside it. Nothing is on its way.")).to_be_visible()
    assert [step(page, name).split()[-1] == "done" for name in ("Withdraw", "Install", "Offer", "Switch")] == [True] * 4
    expect(page.get_by_text("every edge has switched to C epoch")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("host-2"))).to_contain_text(re.compile(r"C :8000.*B :8001"))
    assert page.evaluate("window.sameDocument") is True


def test_a_host_that_fails_is_shown_in_its_own_words(small: Site, open_tab: Open) -> None:
    page = open_tab(small).sign_in("deploy")
    small.fleet.threads[3].bad["B"] = "no module named stripe"  # type: ignore[attr-defined]
    number = small.fleet.begin("B").number
    expect(page.get_by_text("1 host failed", exact=True)).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("host-2"))).to_contain_text("failed: no module named stripe")
    assert "paused" in step(page, "Install")
    small.fleet.threads[3].bad.clear()  # type: ignore[attr-defined]
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Resume the rollout").click()
    small.fleet.until(number, "switched", done=True)
    expect(page.get_by_text("B is the default; A is served beside it.")).to_be_visible()


def test_buttons_say_what_they_do_and_the_audit_keeps_why(small: Site, open_tab: Open) -> None:
    tab = open_tab(small)
    tab.forgiven = FAILED
    page = tab.sign_in("deploy")
    page.get_by_role("button", name="Deploy…").click()
    ask = page.get_by_role("dialog")
    ask.get_by_label("Build").select_option("B")
    ask.get_by_label("Ramp").fill("50, 10")
    ask.get_by_label("Reason").fill("a ramp")
    ask.get_by_role("button", name="Deploy").click()
    expect(ask.get_by_role("alert")).to_contain_text("the percentages of a ramp must grow")
    expect(ask.get_by_label("Reason")).to_have_value("a ramp")  # nothing typed is lost
    ask.get_by_label("Ramp").fill("10, 50")
    ask.get_by_role("button", name="Deploy").click()
    expect(page.get_by_text("10 % of new pages get B; next 50 %")).to_be_visible()
    expect(page.get_by_role("region", name="Plan")).to_contain_text("10 % to B")

    page.get_by_role("button", name="Pause").click()
    expect(ask).to_contain_text("What users get does not change")
    ask.get_by_role("button", name="Cancel").click()
    expect(ask).to_be_hidden()
    page.get_by_role("button", name="Pause").click()
    ask.get_by_label("Reason").fill("lunch")
    ask.get_by_role("button", name="Pause the rollout").click()
    small.fleet.until(2, "paused")
    page.get_by_role("button", name="Abort").click()
    expect(ask).to_contain_text("A stays the default; the 10 % of new pages that got B get the default again.")
    ask.get_by_role("button", name="Abort the rollout").click()
    small.fleet.until(2, "aborted", done=True)
    expect(page.get_by_role("region", name="Last rollout, number 2")).to_contain_text("aborted")

    small.fleet.deploy("C")
    page.get_by_role("button", name="Roll back").click()
    expect(ask).to_contain_text("A becomes the default again on every edge")
    ask.get_by_label("Reason").fill("prices are wrong")
    ask.get_by_role("button", name="Roll back").click()
    small.fleet.until(3, "rolled_back", done=True)
    kept = [(e.by, e.action, e.why) for e in audit.last(small.fleet.store.zk, 50, lambda e: e.by == "deployer")]
    assert kept == [
        ("deployer", "rollback", "prices are wrong"),
        ("deployer", "abort", ""),
        ("deployer", "pause", "lunch"),
        ("deployer", "deploy", "a ramp"),
    ]


def test_a_verdict_moves_a_ramp_that_waits_for_one(small: Site, open_tab: Open) -> None:
    tab = open_tab(small)
    tab.forgiven = FAILED
    page = tab.sign_in("deploy")
    expect(page.get_by_role("button", name="Deploy…")).to_be_visible()
    expect(page.get_by_role("button", name="Verdict…")).to_have_count(0)
    number = small.fleet.begin("B", ramp=[10, 50], hold="verdict").number
    page.get_by_role("button", name="Verdict…").click()
    ask = page.get_by_role("dialog")
    expect(ask).to_contain_text("The ramp waits at 10 % for somebody to say how B compares with A.")
    ask.get_by_role("button", name="Give the verdict").click()  # none was chosen
    expect(ask).to_be_visible()
    ask.get_by_label("Verdict", exact=True).select_option("undecided")
    ask.get_by_label("Reason").fill("too few requests")
    ask.get_by_role("button", name="Give the verdict").click()
    expect(page.get_by_text("verdict undecided: too few requests").first).to_be_visible()
    page.get_by_role("button", name="Verdict…").click()
    ask.get_by_label("Verdict", exact=True).select_option("pass")
    ask.get_by_role("button", name="Give the verdict").click()
    expect(page.get_by_text("Verdict on B at 10 %: pass.").last).to_be_visible()
    expect(page.get_by_text("50 % of new pages get B").first).to_be_visible()
    page.get_by_role("button", name="Verdict…").click()
    ask.get_by_label("Verdict", exact=True).select_option("fail")
    ask.get_by_label("Reason").fill("errors")
    ask.get_by_role("button", name="Give the verdict").click()
    assert small.fleet.until(number, "aborted", done=True).state == "aborted"
    expect(page.get_by_role("button", name="Verdict…")).to_have_count(0)


def test_whoever_resumed_a_ramp_that_waits_for_an_edge_may_think_better_of_it(small: Site, open_tab: Open) -> None:
    page = open_tab(small).sign_in("deploy")
    number = small.fleet.begin("B", ramp=[10], hold="hand").number
    small.fleet.until(number, "ramping")
    small.fleet.threads[1].stop()
    expect(page.get_by_text("no ack (its agent is away)").first).to_be_visible()
    ask = page.get_by_role("dialog")
    page.get_by_role("button", name="Resume").click()
    ask.get_by_role("button", name="Resume the rollout").click()
    expect(page.get_by_text("deployer asked to resume it; it waits for edge-2 first.")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Abort").click()
    ask.get_by_role("button", name="Abort the rollout").click()
    small.fleet.until(number, "aborting")


def test_a_token_that_only_reads_is_refused_in_the_services_own_words(small: Site, open_tab: Open) -> None:
    tab = open_tab(small)
    tab.forgiven = FAILED
    page = tab.sign_in("read")
    small.fleet.deploy("B")
    page.get_by_role("button", name="Roll back").click()
    ask = page.get_by_role("dialog")
    expect(ask).to_contain_text("The token of reader only reads.")
    ask.get_by_role("button", name="Roll back").click()
    expect(ask.get_by_role("alert")).to_contain_text("this needs the role deploy; the token of reader has read")
    assert small.fleet.store.plan("shop").default == "B"
    ask.get_by_label("Token with the role deploy").fill("guess")
    ask.get_by_role("button", name="Roll back").click()
    expect(ask.get_by_role("alert")).to_contain_text("the token is not known here")
    ask.get_by_label("Token with the role deploy").fill(TOKENS["deploy"])
    ask.get_by_role("button", name="Roll back").click()
    small.fleet.until(2, "rolled_back", done=True)
    expect(page.locator("#who")).to_contain_text("deployer")


def test_an_edge_that_is_gone_can_be_evicted(small: Site, open_tab: Open) -> None:
    page = open_tab(small).sign_in("deploy")
    small.fleet.threads[1].stop()
    row = page.get_by_role("region", name="Edges").get_by_role("row", name=re.compile("edge-2"))
    expect(row).to_contain_text("no ack (its agent is away)")
    row.get_by_role("button", name="Evict edge-2").click()
    ask = page.get_by_role("dialog")
    expect(ask).to_contain_text("First take it out of the load balancer")
    ask.get_by_role("button", name="Evict an edge").click()
    expect(ask.get_by_label("Reason")).to_be_focused()  # it is needed
    ask.get_by_label("Reason").fill("its disk is dead")
    ask.get_by_role("button", name="Evict an edge").click()
    expect(row).to_have_count(0)


def test_whatever_anybody_wrote_is_text(small: Site, open_tab: Open) -> None:
    bad = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>{{7*7}}'
    edge = small.fleet.threads[0]
    edge.error = bad  # type: ignore[attr-defined]
    edge.url = "javascript:window.hurt=1"  # type: ignore[attr-defined]
    small.fleet.threads[2].bad["B"] = bad  # type: ignore[attr-defined]
    tab = open_tab(small)
    tab.forgiven = ("This document requires", "CSP require-trusted-types-for")
    page = tab.sign_in("deploy")
    small.fleet.begin("B", reason=bad, by=bad)
    for place in ("Edges", "Hosts", "Rollout 2"):
        expect(page.get_by_role("region", name=place)).to_contain_text(bad)
    assert page.locator("main img, main script, a[href^='javascript']").count() == 0
    page.get_by_role("button", name="Abort").click()
    page.get_by_label("Reason").fill(bad)
    page.get_by_role("button", name="Abort the rollout").click()
    expect(page.get_by_text(f"abort: {bad}").first).to_be_visible()
    assert page.evaluate("window.hurt") is None
    # and were there a way, the browser would not go it
    refused = page.evaluate("try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (e) { e.name }")
    assert refused == "TypeError"


def test_nothing_old_is_shown_as_if_it_were_live(small: Site, open_tab: Open) -> None:
    tab = open_tab(small)
    tab.forgiven = FAILED
    page = tab.sign_in("deploy")
    small.stop()
    banner = page.locator("#banner")
    expect(banner).to_contain_text(re.compile(r"Disconnected \(.+\): last update \d+ s ago"))
    expect(page.get_by_text("live", exact=True)).to_have_count(0)
    assert page.title() == "disconnected: shop – Pinrail"
    assert page.locator("body").get_attribute("class") == "stale"
    with page.expect_request(lambda r: "last-event-id" in r.headers and "events" in r.url, timeout=PATIENCE):
        small.start()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    expect(banner).to_be_empty()
    small.zk.close()  # type: ignore[attr-defined]  # the service is there, and can know nothing
    expect(banner).to_contain_text("no connection to ZooKeeper")
    expect(banner).to_contain_text(re.compile(r"What is shown is \d+ s old"))
    expect(page.get_by_text("nothing is known")).to_be_visible()


def test_flip_flops_are_drawn_with_the_rollouts_steps(small: Site, open_tab: Open) -> None:
    small.fleet.edge("edge-3")  # says no address of its metrics
    page = open_tab(small).sign_in("read")
    figure = page.get_by_role("region", name="Flip-flops")
    expect(figure).to_contain_text("1 of 3 edges cannot be asked")
    small.fleet.deploy("B")
    first, second = small.counting["edge-1"].metrics, small.counting["edge-2"].metrics
    first.requests("shop", "B", "exact", True, 93)
    expect(figure.get_by_text(re.compile(r"No flip-flops of \d+ requests"))).to_be_visible()
    first.requests("shop", "B", "forced", False, 4)
    first.flips("shop", "A", "B", "retired", 4)
    second.requests("shop", "B", "fault", False, 3)
    second.flips("shop", "A", "B", "stamp", 3)
    second.flips("other", "A", "B", "stamp", 50)
    plot = figure.get_by_role("img")
    expect(plot).to_have_attribute("aria-label", "7 flip-flops in the last 10 min: stamp 3, retired 4, of 100 requests")
    expect(figure.get_by_role("listitem").filter(has_text="Faults")).not_to_contain_text(re.compile(r"Faults\s*0 /min"))
    assert [plot.locator(f"rect.c-{cause}").count() > 0 for cause in ("stamp", "retired", "gone")] == [
        True,
        True,
        False,
    ]
    expect(plot.get_by_text("B ✓")).to_be_visible()
    assert "every edge is ready: B is the default" in plot.locator("title").all_text_contents()[-2]
    figure.get_by_text("The same in numbers").click()
    expect(figure.get_by_role("row").filter(has_text="retired 4")).to_contain_text("stamp 3")
    figure.get_by_role("button", name="1 h").click()
    expect(plot).to_have_attribute("aria-label", re.compile("in the last 1 h"))
    figure.get_by_text("cannot be asked").click()
    expect(figure).to_contain_text("edge-3: it says no address of its metrics")


def overflow(page: Page) -> int:
    """Pixels that are wider than the screen; a phone zooms out for them, so its own width cannot be asked."""
    size = page.viewport_size
    assert size is not None
    return int(page.evaluate("document.documentElement.scrollWidth")) - size["width"]


def test_a_phone_shows_all_of_it_without_scrolling_sideways(small: Site, open_tab: Open) -> None:
    small.fleet.deploy(LONG)
    page = open_tab(small, PHONE, has_touch=True, is_mobile=True).sign_in("deploy")
    small.fleet.threads[1].drains = False  # type: ignore[attr-defined]
    small.fleet.begin("C", ramp=(1, 10), reason="x" * 300)
    expect(page.get_by_text("does not move")).to_be_visible()
    assert overflow(page) <= 0
    for name in ("Pause", "Abort"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["height"] >= 40
        assert box["x"] + box["width"] <= PHONE[0]
    page.get_by_role("button", name="Abort").tap()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert (box["x"] >= 0, box["x"] + box["width"] <= PHONE[0]) == (True, True)
    page.get_by_role("dialog").get_by_role("button", name="Abort the rollout").tap()
    expect(page.get_by_text("Asked to abort rollout 3.").last).to_be_visible()
    assert overflow(page) <= 0
    page.set_viewport_size({"width": 320, "height": 640})
    assert overflow(page) <= 0


def test_the_keyboard_alone_is_enough(small: Site, open_tab: Open) -> None:
    small.fleet.deploy("B")
    page = open_tab(small).sign_in("deploy")
    page.reload()
    back = page.get_by_role("button", name="Roll back")
    expect(back).to_be_visible()  # the heading is there before what it is about
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(back).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Roll back")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(back).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("no mouse")
    page.keyboard.press("Enter")
    small.fleet.until(2, "rolled_back", done=True)
    expect(page.get_by_role("status").filter(has_text="every edge is back on A")).to_have_count(1)


def test_what_is_over_before_its_order_is_answered_is_said_all_the_same(small: Site, open_tab: Open) -> None:
    small.fleet.deploy("B")
    page = open_tab(small).sign_in("deploy")
    aloud = page.get_by_role("status")

    def late(route: Route) -> None:
        answer = route.fetch()
        aloud.filter(has_text="every edge is back on A").wait_for(state="attached")
        route.fulfill(response=answer)

    page.route("**/rollback", late)
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(aloud).to_contain_text("every edge is back on A")
    assert len(aloud.locator("p").all()) > 1


def test_no_rule_of_accessibility_is_broken(small: Site, open_tab: Open) -> None:
    tab = open_tab(small, reduced_motion="reduce", bypass_csp=True)  # what looks is a script of its own
    tab.forgiven = FAILED
    page = tab.page
    found: dict[str, str] = {}

    def look(state: str) -> None:
        """By all rules; in the dark the colours alone are others."""
        for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for violation in Axe().run(page, options=options).response["violations"]:
                nodes = [n["html"][:160] for n in violation["nodes"]]
                found[f"{state}, {scheme}: {violation['id']}"] = f"{violation['help']}: {nodes}"

    page.goto(small.url)
    look("sign-in")
    tab.sign_in("deploy")
    first = small.counting["edge-1"].metrics
    first.requests("shop", "B", "forced", False, 4)
    first.flips("shop", "A", "B", "retired", 4)
    expect(page.get_by_role("img", name=re.compile("4 flip-flops"))).to_be_visible()
    small.fleet.threads[3].bad["B"] = "no module named stripe"  # type: ignore[attr-defined]
    small.fleet.begin("B")
    expect(page.get_by_text("1 host failed", exact=True)).to_be_visible()
    look("paused")
    page.get_by_role("button", name="Abort").click()
    look("dialog")
    page.keyboard.press("Escape")
    small.stop()
    expect(page.locator("#banner")).to_contain_text("Disconnected")
    look("disconnected")
    assert found == {}


def test_what_a_screen_reader_is_told(small: Site, open_tab: Open) -> None:
    page = open_tab(small).sign_in("read")
    expect(page.get_by_role("navigation", name="Services").get_by_role("link", name="shop")).to_have_attribute(
        "aria-current", "page"
    )
    expect(page.locator("body")).to_match_aria_snapshot("""
      - banner:
        - link "Pinrail"
        - navigation "Services":
          - link "shop"
      - main:
        - heading "shop" [level=1]
        - region "Last rollout, number 1":
          - heading "Last rollout, number 1" [level=2]
          - group "What can be asked":
            - button "Deploy…"
          - list "Steps":
            - listitem: Queue done
        - region "Flip-flops"
        - region "Plan"
        - region "Versions"
        - region "Edges":
          - table "Edges, with healthy of registered hosts for each version":
            - rowgroup
            - rowgroup:
              - row:
                - rowheader "edge-1"
                - cell "up to date"
                - cell "3/3"
        - region "Hosts"
        - region "Barriers"
    """)
