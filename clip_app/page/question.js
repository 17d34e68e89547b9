// The question: a picture and what to look for in it. Whatever changes, it is asked again.

import { labelInput } from "./chips.js";
import { hear, heading, make, tell, text, translate } from "./page.js";
import { pictureInput } from "./picture.js";
import { TEMPLATE, fromAddress, toAddress, usable } from "./settings.js";
import { whereOverlay } from "./where.js";

const TYPING = 350; // milliseconds without a key

export function start(element, props) {
  translate(element);
  const part = (id) => element.querySelector(`#ca-${id}`);
  const settings = fromAddress();
  let picture = null;
  let counted = null; // the file that was asked about last: it is one upload, however often
  let status = null;
  let count = 0;

  function changed() {
    toAddress(settings);
    ask();
  }

  // What is asked about one picture or many.
  function wanted() {
    const groups = settings.groups ?? status?.default_groups ?? null;
    return {
      groups: groups?.length || !settings.labels.length ? groups : null,
      labels: settings.labels.length ? settings.labels : null,
      template: settings.template,
      independent: settings.independent,
      top_k: settings.top,
    };
  }

  function ask() {
    const options = wanted();
    tell("options", { options, exact: settings.exact });
    const { groups } = options;
    if (!picture) return tell("hint", "ca.empty");
    if (!status?.ready) return tell("hint", "ca.problem.not_ready");
    if (groups && !groups.length && !settings.labels.length) return tell("hint", "ca.ask");
    const { url, file } = picture;
    tell("asked", { number: ++count, picture, options });
    props.value = { picture: { url, name: file.name, fresh: file !== counted }, options, number: count };
    counted = file;
  }

  const input = pictureInput(element, () => settings, (given) => {
    picture = given;
    ask();
  });
  labelInput(element, settings.labels, (labels) => {
    settings.labels = labels;
    changed();
  });
  options(part, settings, changed, () => {
    toAddress(settings);
    input.show();
  });
  hear("status", (now) => {
    const ready = now.ready && !status?.ready;
    status = now;
    if (now.groups.length) drawGroups(part("groups"), now, settings, changed);
    if (ready && picture) input.show(); // reduced for this model, and asked again
    else if (ready) ask();
  });
  hear("again", ask);
  whereOverlay(element);
}

function drawGroups(place, status, settings, changed) {
  const names = status.groups.map((group) => group.name);
  const drawn = [...place.querySelectorAll("input")].map((box) => box.value);
  if (drawn.join() === names.join()) return;
  const strangers = (settings.groups ?? []).filter((name) => !names.includes(name));
  if (strangers.length) settings.groups = settings.groups.filter((name) => names.includes(name));
  const chosen = settings.groups ?? status.default_groups;
  const boxes = status.groups.map(({ name, title }) => {
    const box = make("input", { type: "checkbox", value: name, checked: chosen.includes(name) });
    return make("label", { class: "ca-group-choice" }, box, make("span", {}, heading(name, { [name]: title })));
  });
  const problem = strangers.length ? [make("p", { class: "ca-problem", role: "alert" }, text("ca.problem.link", { names: strangers.join(", ").slice(0, 100) }))] : [];
  place.replaceChildren(...boxes, ...problem);
  place.onchange = () => {
    const wanted = [...place.querySelectorAll("input:checked")].map((box) => box.value);
    settings.groups = wanted.join() === status.default_groups.join() ? null : wanted;
    changed();
  };
}

function options(part, settings, changed, changedPicture) {
  const [template, top] = [part("template"), part("top")];
  template.value = settings.template;
  top.value = settings.top ?? "";
  top.placeholder = "5";
  part("independent").checked = settings.independent;
  part("exact").checked = settings.exact;
  part("options").open = settings.template !== TEMPLATE || settings.independent || Boolean(settings.top) || settings.exact;
  part("independent").addEventListener("change", (event) => {
    settings.independent = event.target.checked;
    changed();
  });
  part("exact").addEventListener("change", (event) => {
    settings.exact = event.target.checked;
    changedPicture();
  });
  onTyped(template, part("template-problem"), "ca.problem.template", (words) => {
    if (words.trim() && !usable(words)) return false;
    settings.template = words.trim() ? words : TEMPLATE;
    return true;
  }, changed);
  onTyped(top, part("top-problem"), "ca.problem.top", (words) => {
    const wanted = Number(words);
    if (top.validity.badInput || (words !== "" && (!Number.isInteger(wanted) || wanted < 1 || wanted > 1000))) return false;
    settings.top = words === "" ? null : wanted;
    return true;
  }, changed);
}

// Take what was typed once the typing stops; say beside the field what is wrong with it.
function onTyped(field, problem, key, take, changed) {
  let waiting;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const fine = take(field.value);
      problem.textContent = fine ? "" : text(key);
      field.setAttribute("aria-invalid", String(!fine));
      if (fine) changed();
    }, TYPING);
  });
}
