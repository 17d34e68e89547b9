// The answer: a verdict first, then a list of bars for each group.

import { drawExamples } from "./examples.js";
import { failure, hear, heading, known, make, number, percent, size, tell, text, translate } from "./page.js";
import { manyPictures } from "./many.js";
import { asImage, asTable, save } from "./report.js";
import { same } from "./where.js";

const FOLDED = 0.01; // scores under this lie behind "more"
const PATIENCE = 3; // tries before a lost connection is said to be one

let latestSeen = null; // the label that the picture shows
hear("seen", (seen) => {
  latestSeen = seen;
  for (const button of document.querySelectorAll(".ca-where-button")) button.pressed(seen);
});

export function start(element, props, watch) {
  translate(element);
  const part = (id) => element.querySelector(`#ca-${id}`);
  const asked = { number: 0, picture: null, tries: 0 };
  let status = null;
  let waiting;

  function busy(on) {
    part("answer").setAttribute("aria-busy", String(on));
    part("gallery").hidden = Boolean(asked.picture);
  }

  function say(...children) {
    part("verdict").replaceChildren(...children);
  }

  function draw() {
    const answer = props.value;
    if (!answer?.number || answer.number !== asked.number) return; // overtaken by a later question
    asked.tries = 0;
    busy(false);
    if (answer.error) return complain(answer.error);
    say(...verdict(answer.verdict));
    const own = (group) => group.name === "labels";
    const groups = [...answer.result.groups.filter(own), ...answer.result.groups.filter((group) => !own(group))];
    part("results").replaceChildren(...warned(answer.result.image), ...groups.map((group) => drawGroup(group, answer.titles)));
    part("details-body").replaceChildren(...details(answer, asked.picture));
    part("after").hidden = false;
  }

  function complain(error) {
    clear();
    let code = error.code;
    if (code === "not_ready" && status?.phase === "failed") code = "failed";
    const key = known(`ca.problem.${code}`) ? `ca.problem.${code}` : "ca.problem.error";
    say(...problem(text(key, error), code === "bad_option" && error.message));
    part("results").replaceChildren(...more(error, code === "bad_option" ? null : error.message));
    if (code === "busy") again(1000 * (error.retry_after ?? 1));
    // The status says when the model is there, and the question asks again; a replica that is behind may need a while.
    if (code === "not_ready" && status?.ready) again(1000 * (error.retry_after ?? 5));
  }

  function again(milliseconds) {
    clearTimeout(waiting);
    waiting = setTimeout(() => tell("again"), milliseconds);
  }

  function lost() {
    const code = failure.status;
    busy(false);
    if (failure.error?.code === "busy") return complain(failure.error);
    if (code === 413) return complain({ code: "proxy_large", size: size(asked.picture?.sent ?? 0) });
    const passing = code === 0 || [502, 503, 504].includes(code);
    if (!passing) return complain({ code: "proxy", status: code });
    if (++asked.tries >= PATIENCE) complain({ code: "lost" });
    again(500 * 2 ** Math.min(asked.tries, 4));
  }

  function clear() {
    part("after").hidden = true;
    part("results").replaceChildren();
  }

  hear("asked", ({ number: count, picture }) => {
    clearTimeout(waiting);
    Object.assign(asked, { number: count, picture });
    busy(true);
    if (!part("verdict").textContent || part("verdict").querySelector(".ca-hint")) say(hint("ca.working"));
  });
  hear("hint", (key) => {
    Object.assign(asked, { number: 0, picture: key === "ca.empty" ? null : asked.picture });
    busy(false);
    clear();
    say(hint(key));
  });
  hear("status", (now) => {
    status = now;
    drawExamples(part("gallery"), now.phase === "failed" ? [] : now.examples);
    if (now.phase === "failed" && !asked.picture) say(...problem(text("ca.problem.failed")));
  });
  hear("collection", ({ active, aside }) => part("answer").classList.toggle("ca-collecting", active && !aside));
  manyPictures(part);
  window.addEventListener("clip-app-lost", lost);
  watch("value", draw);
  actions(part, () => props.value, () => asked.picture);
  say(hint("ca.empty"));
}

function hint(key) {
  return make("p", { class: "ca-hint" }, text(key));
}

function problem(words, message) {
  return [make("p", { class: "ca-wrong" }, words, ...(message ? [" ", make("span", { lang: "en" }, message)] : []))];
}

// What the operator may want to know, behind "why?".
function more(error, message) {
  if (!error.request_id) return [];
  const words = [message, text("ca.problem.request", { id: error.request_id })].filter(Boolean);
  return [make("details", { class: "ca-why" }, make("summary", {}, text("ca.why")), ...words.map((line) => make("p", {}, line)))];
}

function verdict({ level, label, confidence }) {
  if (level === "none") return [make("p", { class: "ca-best" }, text("ca.nothing"))];
  const [before, after] = text("ca.best", { label: "\0" }).split("\0");
  return [
    make("p", { class: "ca-best" }, before, make("strong", {}, label), after),
    make("span", { class: `ca-level ca-${level}` }, text(`ca.${level}`)),
    make("span", { class: "ca-unseen" }, percent(confidence)),
  ];
}

function warned({ warnings = [] }) {
  return warnings.map((words) => make("p", { class: "ca-warning", lang: "en" }, words));
}

function drawGroup(group, titles) {
  const section = make("section", { class: "ca-group", "data-group": group.name }, make("h3", {}, heading(group.name, titles)), ...warned(group));
  const [best] = group.labels;
  if (best && group.no_match > best.confidence) {
    const rows = make("div", { hidden: true }, ...drawRows(group));
    const show = make("button", { type: "button", class: "ca-small", "aria-expanded": "false" }, text("ca.anyway"));
    show.addEventListener("click", () => {
      rows.hidden = !rows.hidden;
      show.setAttribute("aria-expanded", String(!rows.hidden));
    });
    section.append(make("p", { class: "ca-lost" }, make("span", {}, text("ca.nothing")), show), rows);
  } else {
    section.append(...drawRows(group));
  }
  return section;
}

function drawRows(group) {
  const rivals = group.labels.map((score) => score.label);
  const rows = group.labels.map((score) => drawRow(score.label, score.confidence, "", whereButton({ label: score.label, group: group.name, rivals })));
  const seen = Math.max(1, group.labels.filter((score) => score.confidence >= FOLDED).length);
  const none = group.no_match >= FOLDED ? [drawRow(text("ca.none"), group.no_match, "ca-none")] : [];
  const list = make("ol", { class: "ca-rows" }, ...rows.slice(0, seen), ...none);
  const folded = rows.slice(seen);
  if (!folded.length) return [list];
  const words = folded.length === 1 ? text("ca.folded.one") : text("ca.folded", { count: number(folded.length) });
  return [list, make("details", { class: "ca-folded" }, make("summary", {}, words), make("ol", { class: "ca-rows", start: seen + 1 }, ...folded))];
}

// Asks where in the picture the label was seen; pressed while the picture shows it.
function whereButton(question) {
  const pressed = (seen) => {
    const mine = same(question, seen);
    button.setAttribute("aria-pressed", String(mine));
    button.setAttribute("aria-busy", String(mine && Boolean(seen.busy)));
  };
  const button = make("button", { type: "button", class: "ca-where-button", "aria-label": text("ca.where.label", question) }, text("ca.where"));
  button.addEventListener("click", () => tell("where", question));
  button.pressed = pressed;
  pressed(latestSeen);
  return button;
}

function drawRow(label, share, kind = "", button = "") {
  const bar = make("span", { class: "ca-track", "aria-hidden": "true" }, make("span", { class: "ca-fill", style: `width:${(100 * share).toFixed(2)}%` }));
  return make("li", { class: `ca-row ${kind}` }, make("span", { class: "ca-label" }, label), make("span", { class: "ca-value" }, percent(share)), bar, button);
}

function details({ result, titles }, picture) {
  const { model, timings_ms: times } = result;
  const revision = /^[0-9a-f]{40}$/.test(model.revision) ? model.revision.slice(0, 7) : model.revision;
  const pixels = picture?.width ? `${picture.width} × ${picture.height} ${text("ca.detail.pixels")}, ${size(picture.file.size)}; ` : "";
  const sent = `${text("ca.detail.sent")} ${result.image.width} × ${result.image.height}, ${size(picture?.sent ?? 0)}`;
  const spent = Object.entries(times).map(([name, ms]) => `${name} ${number(ms)}`).join(", ");
  const facts = make("dl", {},
    make("dt", {}, text("ca.detail.model")), make("dd", {}, `${model.id} (${revision}), ${model.engine} ${model.precision}`),
    make("dt", {}, text("ca.detail.picture")), make("dd", {}, pixels + sent),
    make("dt", {}, text("ca.detail.times")), make("dd", {}, `${spent} ms`));
  const heads = ["label", "score", "similarity"].map((name) => make("th", { scope: "col" }, text(`ca.detail.${name}`)));
  const tables = result.groups.map((group) => make("table", {},
    make("caption", {}, heading(group.name, titles)),
    make("thead", {}, make("tr", {}, ...heads.map((head) => head.cloneNode(true)))),
    make("tbody", {}, ...group.labels.map((score) => make("tr", {},
      make("th", { scope: "row" }, score.label), make("td", {}, percent(score.confidence)), make("td", {}, number(score.similarity, 3)))))));
  return [facts, ...tables];
}

function actions(part, answer, picture) {
  let fading;
  const done = (key) => {
    part("done").textContent = text(key);
    clearTimeout(fading);
    fading = setTimeout(() => (part("done").textContent = ""), 5000);
  };
  part("save").addEventListener("click", async () => {
    save(await asImage(answer(), picture()), picture().file.name, "png");
    done("ca.saved");
  });
  part("csv").addEventListener("click", () => {
    save(new Blob([asTable(answer().result)], { type: "text/csv" }), picture().file.name, "csv");
    done("ca.saved");
  });
  part("json").addEventListener("click", () => {
    save(new Blob([JSON.stringify(answer().result, null, 2)], { type: "application/json" }), picture().file.name, "json");
    done("ca.saved");
  });
  part("link").addEventListener("click", async () => {
    // Without a secure connection there is no clipboard; the address bar has it in any case.
    const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    done(copied ? "ca.copied" : "ca.uncopied");
  });
}
