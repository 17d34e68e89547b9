// Many pictures of a visitor: asked about a few at a time, and kept in this tab only.

import { address } from "./page.js";

const AT_ONCE = 2; // a server has other visitors
const TRIES = 5; // of a picture that the server had no place for, or that did not reach it
export const MOST = 5000; // pictures that a tab can hold

// Tells "change" whenever something of it did. An item is { name, open (to its file), state: waiting, asked, done
// or failed, thumbnail, result or error, embedding }.
export class Collection extends EventTarget {
  items = [];
  running = false;
  started = 0;
  finished = 0; // since it was started
  #turn = 0;
  #reducer = null;
  #reducing = new Map();

  add(files) {
    const room = MOST - this.items.length;
    this.items.push(...files.slice(0, room).map(({ name, open, problem }) => ({
      name, open, state: problem ? "failed" : "waiting", error: problem ? { code: problem } : null,
    })));
    this.#changed();
    return files.length - Math.min(files.length, room);
  }

  count(state) {
    return this.items.filter((item) => item.state === state).length;
  }

  // Seconds left and pictures a second, once that can be said.
  pace() {
    const rate = this.finished / ((performance.now() - this.started) / 1000);
    return this.finished > 2 ? { rate, left: this.count("waiting") / rate } : null;
  }

  // Ask about all that wait; with other options about all again.
  async run(options, limits, again = false) {
    const mine = ++this.#turn;
    for (const item of this.items) {
      if (item.state === "asked" || (again && item.state === "done")) item.state = "waiting";
    }
    Object.assign(this, { running: true, started: performance.now(), finished: 0 });
    this.#changed();
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.#work(mine, options, limits)));
    if (mine !== this.#turn) return;
    this.running = false;
    this.#changed();
  }

  stop() {
    this.#turn++;
    for (const item of this.items) if (item.state === "asked") item.state = "waiting";
    this.running = false;
    this.#changed();
  }

  // What it holds of the browser's memory goes with it.
  close() {
    this.stop();
    this.#reducer?.terminate();
    this.#reducer = null;
    this.#reducing.clear();
    for (const { thumbnail } of this.items) if (thumbnail) URL.revokeObjectURL(thumbnail);
    this.items = [];
  }

  async #work(mine, options, limits) {
    for (;;) {
      const item = mine === this.#turn ? this.items.find(({ state }) => state === "waiting") : null;
      if (!item) return;
      item.state = "asked";
      const answer = await this.#ask(item, options, limits).catch(() => ({ error: { code: "lost" } }));
      if (mine !== this.#turn) return; // stopped, or asked for something else
      Object.assign(item, answer, { state: answer.error ? "failed" : "done" });
      this.finished++;
      this.#changed();
    }
  }

  async #ask(item, options, limits) {
    const file = await item.open().catch(() => null);
    if (!file) return { error: { code: "unreadable" } };
    const { blob, thumbnail } = await this.#reduce(file, limits.exact ? null : limits.resize);
    if (thumbnail && !item.thumbnail) item.thumbnail = URL.createObjectURL(thumbnail);
    const picture = blob ?? file;
    if (!picture.size) return { error: { code: "empty" } };
    if (picture.size > limits.bytes) return { error: { code: "too_large" } };
    for (let tried = 1; ; tried++) {
      const response = await send(picture, item.name, options).catch(() => null);
      const passing = !response || [429, 502, 503, 504].includes(response.status);
      if (passing && tried < TRIES) {
        await pause(1000 * Number(response?.headers.get("Retry-After") ?? 2 ** tried / 2));
        continue;
      }
      if (!response) return { error: { code: "lost" } };
      const body = await response.json().catch(() => ({ error: { code: "proxy", status: response.status } }));
      if (!response.ok) return { error: body.error ?? { code: "error" } };
      const { embedding, ...result } = body.results[0];
      return { result, error: null, embedding: embedding ? numbers(embedding.data) : null };
    }
  }

  #reduce(file, resize) {
    if (!this.#reducer) {
      this.#reducer = new Worker(address("page/reducer.js"), { type: "module" });
      this.#reducer.onmessage = ({ data }) => {
        this.#reducing.get(data.id)?.(data);
        this.#reducing.delete(data.id);
      };
    }
    const id = crypto.getRandomValues(new Uint32Array(2)).join();
    return new Promise((done) => {
      this.#reducing.set(id, done);
      this.#reducer.postMessage({ id, file, resize });
    });
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

function send(picture, name, options) {
  const body = new FormData();
  body.append("image", picture, name.split("/").pop());
  body.append("embedding", "true");
  for (const group of options.groups ?? []) body.append("groups", group);
  if (options.labels) {
    body.append("labels", JSON.stringify(options.labels));
    body.append("template", options.template);
    body.append("independent", String(options.independent));
  }
  if (options.top_k) body.append("top_k", options.top_k);
  return fetch(address("api/analyze"), { method: "POST", body });
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Little-endian float32 in base64.
export function numbers(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
