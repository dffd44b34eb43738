// Requests to the API, with the token; what it refuses becomes a Refusal with the problem's own sentence.

import { token } from "./session.js";

const SECONDS = 15;

export class Refusal extends Error {
  /** `status` 0: no answer at all. */
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export function authorization(value = token()) {
  return value ? { Authorization: `Bearer ${value}` } : {};
}

/** What an answer that is an error says. */
export async function refusal(answer) {
  let sentence = `the service answered ${answer.status}`;
  try {
    const problem = await answer.json();
    if (typeof problem.detail === "string") sentence = problem.detail;
  } catch {
    // no problem document: a proxy in between, perhaps; its status has to do
  }
  return new Refusal(answer.status, sentence);
}

async function ask(method, path, { body, using, headers } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: {
        ...authorization(using),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(SECONDS * 1000),
      redirect: "error",
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Refusal(0, late ? `no answer within ${SECONDS} s: it may have been done; look before asking again`
      : "the service cannot be reached: nothing is known of what became of the request");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

const segment = encodeURIComponent;

export const whoami = (using) => ask("GET", "/v1/whoami", { using });
export const builds = (service) => ask("GET", `/v1/services/${segment(service)}/builds`);
export const rollout = (service, number) => ask("GET", `/v1/services/${segment(service)}/rollouts/${segment(number)}`);

export const act = (service, number, verb, reason) =>
  ask("POST", `/v1/services/${segment(service)}/rollouts/${segment(number)}/${segment(verb)}`, { body: { reason } });

export const verdict = (service, number, body) =>
  ask("POST", `/v1/services/${segment(service)}/rollouts/${segment(number)}/verdict`, { body });

export const evict = (edge, reason) => ask("POST", `/v1/edges/${segment(edge)}/evict`, { body: { reason } });

/** `key` makes asking twice the same as asking once. */
export const deploy = (service, body, key) =>
  ask("POST", `/v1/services/${segment(service)}/rollouts`, { body, headers: { "Idempotency-Key": key } });
