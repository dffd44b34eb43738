// Server-sent events over fetch, as EventSource cannot send a token. Connects again by itself, with Last-Event-ID and
// growing pauses. Says when something came last; it never says "live" of what is not.

import { authorization, refusal } from "./api.js";

/** The service says something every two seconds; silence for longer than this is a broken connection. */
const SILENCE = 8000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15000;
/** Answers that another try would not change. */
const FINAL = new Set([401, 403, 404, 422]);

/** Splits text into events as it arrives: `feed` it pieces; `take(name, data, id)` gets each whole event. */
export class Parser {
  constructor(take) {
    this.take = take;
    this.rest = "";
    this.clear();
  }

  clear() {
    this.name = "message";
    this.data = [];
    this.id = null;
  }

  feed(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.take(this.name, this.data.join("\n"), this.id);
      this.clear();
      return;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") this.name = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id") this.id = value;
  }
}

export class Stream {
  /** `on`: event(name, value), lost(sentence), refused(Refusal). */
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.lastId = "";
    this.pause = FIRST_PAUSE;
    this.closed = false;
    this.wake = () => {};
    this.abort = null;
    this.run();
  }

  close() {
    this.closed = true;
    this.abort?.abort();
    this.wake();
  }

  /** Do not wait for the pause to end. */
  now() {
    this.pause = FIRST_PAUSE;
    this.wake();
  }

  async run() {
    while (!this.closed) {
      const why = await this.once();
      if (this.closed) return;
      this.on.lost(why);
      await new Promise((resume) => {
        this.wake = resume;
        setTimeout(resume, this.pause * (0.75 + Math.random() / 2));
      });
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    }
  }

  /** One connection, until it ends; why it did. */
  async once() {
    this.abort = new AbortController();
    let timer;
    const listen = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.abort.abort(), SILENCE);
    };
    listen();
    try {
      const answer = await fetch(this.url, {
        headers: { ...authorization(), Accept: "text/event-stream", ...(this.lastId ? { "Last-Event-ID": this.lastId } : {}) },
        signal: this.abort.signal,
        redirect: "error",
        credentials: "omit",
        cache: "no-store",
      });
      if (!answer.ok) {
        const refused = await refusal(answer);
        if (FINAL.has(refused.status)) this.refuse(refused);
        return refused.message;
      }
      const parser = new Parser((name, data, id) => this.take(name, data, id));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return "the service ended the connection";
        listen();
        parser.feed(value);
      }
    } catch {
      return this.abort.signal.aborted ? "the service has gone silent" : "the service cannot be reached";
    } finally {
      clearTimeout(timer);
      this.abort.abort();
    }
  }

  take(name, data, id) {
    if (this.closed) return;
    this.pause = FIRST_PAUSE;
    if (id !== null) this.lastId = id;
    const value = JSON.parse(data);
    if (name === "refused") this.refuse(Object.assign(new Error(value.detail), { status: value.status }));
    else this.on.event(name, value);
  }

  refuse(refused) {
    if (this.closed) return;
    this.close();
    this.on.refused(refused);
  }
}
