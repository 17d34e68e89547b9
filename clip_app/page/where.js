// Where a label was seen: its map over the photograph, with a slider for its strength.

import { address, hear, known, make, tell, text } from "./page.js";

// The colours of the server's own picture of a map, from where nothing is to where most is.
const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [148, 209, 79], [253, 231, 37]];
const FINE = 512; // pixels of the longer side that a map is drawn in

export function whereOverlay(root) {
  const part = (id) => root.querySelector(`#ca-${id}`);
  const [overlay, canvas, drawn, strength] = [part("where"), part("where-map"), part("where-picture"), part("where-strength")];
  let asked = { picture: null };
  let wanted = null;
  let turn = 0;

  function clear() {
    turn++;
    wanted = null;
    overlay.hidden = canvas.hidden = drawn.hidden = true;
    if (drawn.src) URL.revokeObjectURL(drawn.src);
    drawn.removeAttribute("src");
    tell("seen", null);
  }

  async function look(question) {
    const { picture, options } = asked;
    const mine = ++turn;
    wanted = question;
    tell("seen", { ...question, busy: true });
    say("ca.where.looking", question.label);
    const answer = await request(picture, options, question).catch(() => ({ code: "lost" }));
    if (mine !== turn) return; // another label, or another picture
    if (answer.code) {
      clear();
      return say(known(`ca.problem.${answer.code}`) ? `ca.problem.${answer.code}` : "ca.problem.error", question.label);
    }
    tell("seen", question);
    const nothing = answer.map && !answer.map.some((row) => row.some(Boolean));
    say(nothing ? "ca.where.nowhere" : "ca.where.shown", question.label);
    show(answer, picture);
    overlay.scrollIntoView({ block: "nearest" });
  }

  function say(key, label) {
    overlay.hidden = false;
    strength.hidden = key !== "ca.where.shown" || !asked.picture.shown;
    part("where-said").textContent = text(key, { label });
  }

  function show({ map, blob }, picture) {
    canvas.hidden = !map;
    drawn.hidden = !blob;
    if (map) paint(canvas, map, picture.width / picture.height);
    if (blob) drawn.src = URL.createObjectURL(blob);
  }

  const fade = () => (canvas.style.opacity = strength.value / 100);
  strength.addEventListener("input", fade);
  fade();
  part("where-close").addEventListener("click", clear);
  hear("where", (question) => (same(question, wanted) ? clear() : look(question)));
  hear("asked", (now) => {
    const changed = now.picture !== asked.picture;
    asked = now;
    if (changed) clear();
  });
  hear("hint", (key) => key === "ca.empty" && clear());
}

export function same(one, other) {
  return Boolean(one && other) && one.label === other.label && one.group === other.group;
}

// A picture that the browser cannot show comes back with the map drawn over it.
async function request(picture, options, { label, group, rivals }) {
  const body = new FormData();
  body.append("image", await (await fetch(picture.url)).blob(), "picture");
  body.append("label", label);
  body.append("format", picture.shown ? "json" : "png");
  if (group === "labels") {
    body.append("labels", JSON.stringify(rivals));
    body.append("template", options.template);
  } else body.append("group", group);
  const response = await fetch(address("api/explain"), { method: "POST", body });
  if (response.ok) return picture.shown ? response.json() : { blob: await response.blob() };
  const { error } = await response.json().catch(() => ({ error: { code: "lost" } }));
  return error;
}

function paint(canvas, map, shape) {
  const small = make("canvas", { width: map[0].length, height: map.length });
  const pixels = new ImageData(map[0].length, map.length);
  map.flat().forEach((value, i) => pixels.data.set([...colour(value), 255], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = shape > 1 ? [FINE, Math.round(FINE / shape)] : [Math.round(FINE * shape), FINE];
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((channel, i) => channel + (HEAT[low + 1][i] - channel) * (place - low));
}
