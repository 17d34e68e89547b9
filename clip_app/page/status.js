// The state of the model, as a pill: how far it is, what serves, and behind "why?" what only an operator can mend.

import { watchApiView } from "./apiview.js";
import { number, tell, text, translate } from "./page.js";

export function start(element, props, watch) {
  translate(element);
  const part = (id) => element.querySelector(`#ca-${id}`);
  const speed = {};

  function draw() {
    const status = props.value;
    if (!status?.phase) return;
    const [state, words] = describe(status, speed);
    part("pill").dataset.state = state;
    if (part("pill-text").textContent !== words) part("pill-text").textContent = words;
    part("pill").style.setProperty("--done", status.ready ? 1 : status.progress);
    const why = [status.reason, ...status.left_out].filter(Boolean).join(" ");
    part("why").hidden = !why;
    part("why-text").textContent = why;
    tell("status", status);
  }

  watch("value", draw);
  draw();
  watchApiView();
}

function describe(status, speed) {
  const model = status.model && named(status.model);
  if (status.phase === "failed") return ["bad", text("ca.state.failed")];
  if (!status.ready) return ["busy", [text(`ca.state.${status.phase.split(" ")[0]}`), ...progress(status, speed)].join(" · ")];
  if (!status.verified) return ["warn", text("ca.state.unverified")];
  if (status.model.bundled) return ["warn", text("ca.state.bundled")];
  if (status.left_out.length) return ["good", text("ca.state.slower", { model, engine: status.model.engine })];
  return ["good", text("ca.state.ready", { model })];
}

// Without who made it, with the folder of the repository where that tells models apart; and int8, which is not exact.
function named({ id, precision }) {
  const [repo, part] = id.split(":");
  return [repo.split("/").at(-1), part?.split("/").at(-1), precision === "int8" && "int8"].filter(Boolean).join(" ");
}

function progress(status, speed) {
  const { done_bytes: done, total_bytes: total } = status;
  if (status.phase !== "fetching" || !total) {
    return status.phase === "labels" ? [`${number(100 * status.progress)} %`] : [];
  }
  const now = performance.now();
  if (speed.total !== total || done < speed.done) Object.assign(speed, { total, done, since: now });
  const rate = (done - speed.done) / (now - speed.since); // bytes a millisecond
  const words = [text("ca.state.of", { done: number(done / 1e6), total: number(total / 1e6) })];
  if (rate > 0) {
    const seconds = Math.ceil((total - done) / rate / 1000);
    const time = seconds < 90 ? text("ca.seconds", { n: seconds }) : text("ca.minutes", { n: Math.round(seconds / 60) });
    words.push(text("ca.state.left", { time }));
  }
  return words;
}
