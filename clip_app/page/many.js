// Many pictures: how far they are, a grid or a table of them, sorted, filtered and searched.

import { Collection } from "./collection.js";
import { address, hear, known, make, number, percent, tell, text } from "./page.js";
import { byPicture, byText, nearDuplicates } from "./ranking.js";
import { allAsTable, save, sidecars } from "./report.js";
import { MOST_FILES } from "./unzip.js";

const REDRAWN = 300; // milliseconds between two drawings of what changes all the time
const TYPING = 350;
const MOST_PAIRS = 500;

export function manyPictures(part) {
  const pictures = new Collection();
  const limits = {};
  const view = { table: false, sort: "given", label: "", above: 0, search: null };
  let options = null;
  let status = null;
  let drawing = null;

  let active = false; // there is a collection
  let aside = false; // one of its pictures is looked at

  function show() {
    part("many").hidden = !active || aside;
    part("back").hidden = !active || !aside;
    part("back").textContent = text("ca.many.back", { count: number(pictures.items.length) });
    tell("collection", { active, aside });
  }

  function start(files) {
    [active, aside] = [true, false];
    show();
    const left = pictures.add(files);
    part("many-problem").textContent = left ? text("ca.many.most", { count: number(pictures.items.length), left: number(left) }) : "";
    run();
  }

  function run(again = false) {
    if (!status?.ready || !options) return draw();
    pictures.run(options, limits, again);
  }

  function close() {
    pictures.close();
    view.search = null;
    part("many-find").value = "";
    [active, aside] = [false, false];
    show();
  }

  function draw() {
    clearTimeout(drawing);
    drawing = null;
    offerLabels(part("many-label"), pictures.items);
    const shown = chosen(pictures.items, view);
    drawProgress(part, pictures, status, shown.length);
    part("many-grid").hidden = view.table;
    part("many-table").hidden = !view.table;
    if (view.table) drawTable(part("many-table"), shown);
    else drawGrid(part("many-grid"), shown, view.search, { open: openItem, similar });
    const alike = duplicates();
    part("many-pairs").classList.toggle("ca-away", !alike.length);
    part("many-pairs").textContent = alike.length === 1 ? text("ca.many.pair") : text("ca.many.pairs", { count: number(alike.length) });
  }

  function openItem(item) {
    aside = true;
    show();
    tell("open", item);
  }

  function back() {
    if (!active || !aside) return;
    aside = false;
    show();
    draw();
  }

  let pairs = { finished: -1, found: [] };
  function duplicates() {
    const count = pictures.count("done");
    if (!pictures.running && pairs.finished !== count) {
      pairs = { finished: count, found: nearDuplicates(pictures.items, status?.search?.duplicate ?? 0.9, MOST_PAIRS) };
    }
    return pictures.running ? [] : pairs.found;
  }

  function similar(item) {
    view.search = { kind: "picture", item, found: byPicture(pictures.items, item.embedding, status.search.alike) };
    part("many-find").value = "";
    draw();
  }

  async function find(words) {
    if (!words.trim()) {
      view.search = null;
      return draw();
    }
    const embeddings = await embed([filled(status.search.template, words.trim()), ...status.search.neutral]).catch(() => null);
    if (part("many-find").value !== words) return; // typed on
    part("many-problem").textContent = embeddings ? "" : text("ca.many.unfound");
    if (!embeddings) return;
    const [query, ...neutral] = embeddings;
    view.search = { kind: "text", found: byText(pictures.items, query, neutral, status.search.scale) };
    draw();
  }

  pictures.addEventListener("change", () => {
    if (view.search?.kind === "text" && !pictures.running) find(part("many-find").value);
    drawing ??= setTimeout(draw, REDRAWN);
  });
  controls(part, pictures, view, { draw, run, close, find, duplicates });
  part("back").addEventListener("click", back);
  hear("many", start);
  hear("hint", (key) => key === "ca.empty" && back());
  hear("options", (now) => {
    const changed = options && JSON.stringify(now.options) !== JSON.stringify(options);
    options = now.options;
    limits.exact = now.exact;
    if (active) run(changed);
  });
  hear("status", (now) => {
    const ready = now.ready && !status?.ready;
    status = now;
    Object.assign(limits, { resize: now.resize, bytes: now.max_bytes });
    if (ready && active) run();
  });
}

function controls(part, pictures, view, { draw, run, close, find, duplicates }) {
  part("many-stop").addEventListener("click", () => (pictures.running ? pictures.stop() : run()));
  part("many-close").addEventListener("click", close);
  for (const [name, table] of [["grid", false], ["table", true]]) {
    part(`many-as-${name}`).addEventListener("click", () => {
      view.table = table;
      for (const other of ["grid", "table"]) part(`many-as-${other}`).setAttribute("aria-pressed", String(other === name));
      draw();
    });
  }
  const set = (id, name, read) => part(id).addEventListener("change", (event) => {
    view[name] = read(event.target.value);
    draw();
  });
  set("many-sort", "sort", String);
  set("many-label", "label", String);
  set("many-above", "above", (value) => Math.min(100, Math.max(0, Number(value) || 0)) / 100);
  let waiting;
  part("many-find").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => find(event.target.value), TYPING);
  });
  part("many-pairs").addEventListener("click", () => {
    view.search = { kind: "pairs", found: duplicates().flatMap(({ one, other, score }) => [one, other].map((item) => ({ item, score, relevant: true }))) };
    draw();
  });
  const done = () => pictures.items.filter((item) => item.result || item.error).map(told);
  part("many-csv").addEventListener("click", () => save(new Blob([allAsTable(done())], { type: "text/csv" }), "pictures", "csv"));
  part("many-json").addEventListener("click", () => save(new Blob([JSON.stringify(done().map(asEntry), null, 2)], { type: "application/json" }), "pictures", "json"));
  part("many-xmp").addEventListener("click", () => save(sidecars(pictures.items.filter((item) => item.result)), "pictures", "zip"));
}

// With the reason in words where the page found out itself.
function told({ name, result, error }) {
  return { name, result, error: error && { message: reason(error), ...error } };
}

function asEntry({ name, result, error }) {
  if (!result) return { image: { name }, error };
  return { ...result, image: { ...result.image, name } };
}

function drawProgress(part, pictures, status, shown) {
  const total = pictures.items.length;
  const [failed, done] = [pictures.count("failed"), pictures.count("done")];
  const share = total ? (done + failed) / total : 0;
  part("many-bar").style.setProperty("--done", share);
  part("many-bar").setAttribute("aria-valuenow", String(Math.round(100 * share)));
  const pace = pictures.running ? pictures.pace() : null;
  const words = [text("ca.many.of", { done: number(done + failed), total: number(total) })];
  if (failed) words.push(text("ca.many.failed", { count: number(failed) }));
  if (pace) words.push(text("ca.many.rate", { rate: number(pace.rate, 1) }), text("ca.state.left", { time: time(pace.left) }));
  if (shown < total) words.push(text("ca.many.shown", { count: number(shown) }));
  if (!status?.ready) words.push(text("ca.problem.not_ready"));
  part("many-said").textContent = words.join(" · ");
  part("many-stop").hidden = !pictures.running && !pictures.count("waiting");
  part("many-stop").textContent = text(pictures.running ? "ca.many.stop" : "ca.many.go_on");
}

function time(seconds) {
  return seconds < 100 ? text("ca.seconds", { n: number(Math.ceil(seconds)) }) : text("ca.minutes", { n: number(Math.ceil(seconds / 60)) });
}

// A group that loses to its neutral prompts says nothing; a visitor's own labels go first.
export function best({ result }) {
  const found = (result?.groups ?? []).filter(({ labels, no_match }) => labels.length && labels[0].confidence >= no_match);
  const own = found.filter((group) => group.name === "labels");
  const tops = (own.length ? own : found).map((group) => group.labels[0]);
  return tops.sort((a, b) => b.confidence - a.confidence)[0] ?? null;
}

function scoreOf(item, label) {
  const scores = (item.result?.groups ?? []).flatMap((group) => group.labels).filter((score) => score.label === label);
  return scores.length ? Math.max(...scores.map((score) => score.confidence)) : 0;
}

function chosen(items, { sort, label, above, search }) {
  const rate = (item) => (label ? scoreOf(item, label) : best(item)?.confidence ?? 0);
  const fits = (item) => (!label && !above) || (item.state === "done" && rate(item) >= Math.max(above, label ? 0.01 : 0));
  if (search) return search.found.filter(({ item }) => fits(item));
  const shown = items.filter(fits).map((item) => ({ item, score: null, relevant: true }));
  if (sort === "name") shown.sort((a, b) => a.item.name.localeCompare(b.item.name, undefined, { numeric: true }));
  if (sort === "score") shown.sort((a, b) => rate(b.item) - rate(a.item));
  if (sort === "label") shown.sort((a, b) => (best(a.item)?.label ?? "\uffff").localeCompare(best(b.item)?.label ?? "\uffff") || rate(b.item) - rate(a.item));
  return shown;
}

function offerLabels(select, items) {
  const counts = new Map();
  for (const item of items) {
    const label = best(item)?.label;
    if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const wanted = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, 200);
  const drawn = wanted.map(([label, count]) => `${label} (${count})`).join();
  if (select.drawn === drawn) return;
  const kept = select.value;
  select.drawn = drawn;
  select.replaceChildren(make("option", { value: "" }, text("ca.many.any")), ...wanted.map(([label, count]) => make("option", { value: label }, `${label} (${count})`)));
  if (kept && !counts.has(kept)) select.append(make("option", { value: kept }, kept));
  select.value = kept;
}

// Tiles are made once and moved: what was loaded stays.
function drawGrid(grid, shown, search, act) {
  const nodes = [];
  let ended = false;
  for (const { item, score, relevant } of shown) {
    if (!relevant && !ended) {
      ended = true;
      nodes.push(make("p", { class: "ca-cut" }, text("ca.many.cut")));
    }
    item.tile ??= makeTile(item, act);
    item.tile.update(search ? score : null, relevant);
    nodes.push(item.tile);
  }
  if (!nodes.length) nodes.push(make("p", { class: "ca-hint" }, text("ca.many.none")));
  const drawn = [...grid.children];
  if (nodes.length !== drawn.length || nodes.some((node, i) => node !== drawn[i])) grid.replaceChildren(...nodes);
}

function makeTile(item, { open, similar }) {
  const image = make("img", { alt: "", loading: "lazy", hidden: true });
  const words = make("span", { class: "ca-tile-words" });
  const button = make("button", { type: "button", class: "ca-tile-open", onclick: () => open(item) }, image, words);
  const like = make("button", { type: "button", class: "ca-tile-like", hidden: true, onclick: () => similar(item) }, text("ca.many.similar"));
  const tile = make("div", { class: "ca-tile" }, button, like);
  tile.update = (score, relevant) => {
    if (item.thumbnail && !image.src) {
      image.src = item.thumbnail;
      image.hidden = false;
    }
    const said = says(item);
    // What cannot be seen is told by its name.
    const name = item.state === "failed" ? [make("strong", {}, item.name.split("/").at(-1)), " "] : [];
    words.replaceChildren(...name, score == null ? said : `${said} · ${number(score, 2)}`);
    tile.dataset.state = item.state;
    tile.classList.toggle("ca-beyond", !relevant);
    button.title = item.name;
    button.setAttribute("aria-label", `${item.name}: ${said}`);
    button.disabled = !item.open;
    like.hidden = !item.embedding;
    like.setAttribute("aria-label", text("ca.many.similar.to", { name: item.name }));
  };
  return tile;
}

function says(item) {
  if (item.state === "failed") return reason(item.error);
  if (item.state !== "done") return "…";
  const top = best(item);
  return top ? `${top.label} ${percent(top.confidence)}` : text("ca.nothing");
}

function reason(error) {
  const key = `ca.problem.${error.code}`;
  return known(key) ? text(key, { most: number(MOST_FILES), ...error }) : error.message ?? text("ca.problem.error");
}

function drawTable(table, shown) {
  const heads = ["ca.many.picture", "ca.detail.label", "ca.detail.score"].map((key) => make("th", { scope: "col" }, text(key)));
  const rows = shown.map(({ item, score, relevant }) => {
    const top = item.state === "done" ? best(item) : null;
    const value = score == null ? (top ? percent(top.confidence) : "") : number(score, 3);
    return make("tr", { class: relevant ? "" : "ca-beyond" },
      make("th", { scope: "row" }, item.name), make("td", {}, top ? top.label : says(item)), make("td", {}, value));
  });
  table.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
}

// An article that was typed takes the place of the template's.
function filled(template, words) {
  const fits = /^(an?|the)\s/i.test(words) ? template.replace(/\b(an?|the)\s+\{\}/i, "{}") : template;
  return fits.replace("{}", () => words);
}

// Texts to unit embeddings.
async function embed(input) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(address("v1/embeddings"), { method: "POST", headers, body: JSON.stringify({ input }) });
  if (!response.ok) throw new Error(String(response.status));
  return (await response.json()).data.map((one) => Float32Array.from(one.embedding));
}
