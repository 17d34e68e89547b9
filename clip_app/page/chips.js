// The visitor's own labels as chips: typed, pasted or from a file.

import { make, text } from "./page.js";
import { LONGEST_LABEL, MOST_LABELS } from "./settings.js";

// Calls `changed` with all labels whenever they change.
export function labelInput(root, initial, changed) {
  const part = (id) => root.querySelector(`#ca-${id}`);
  const [list, input, problem] = [part("chips"), part("label"), part("label-problem")];
  let labels = [...initial];

  const complain = (key, values) => (problem.textContent = key ? text(key, values) : "");

  function add(found) {
    const before = labels.length;
    const there = new Set(labels.map((label) => label.toLowerCase()));
    const fresh = found.filter((label) => !there.has(label.toLowerCase()) && there.add(label.toLowerCase()));
    const long = fresh.find((label) => label.length > LONGEST_LABEL);
    if (long) return complain("ca.problem.label_long", { label: `${long.slice(0, 30)}…` });
    const room = MOST_LABELS - labels.length;
    labels.push(...fresh.slice(0, room));
    complain(fresh.length > room ? "ca.problem.label_many" : null, { count: fresh.length - room });
    input.value = "";
    if (labels.length > before) update();
  }

  function remove(label) {
    labels = labels.filter((other) => other !== label);
    update();
    input.focus();
  }

  function draw() {
    list.replaceChildren(...labels.map((label) => {
      const cross = make("button", { type: "button", "aria-label": text("ca.own.remove", { label }), onclick: () => remove(label) }, "×");
      return make("li", { class: "ca-chip" }, make("span", {}, label), cross);
    }));
    list.hidden = !labels.length;
    part("clear").disabled = !labels.length;
  }

  function update() {
    draw();
    list.scrollTop = list.scrollHeight;
    changed([...labels]);
  }

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter ends a word of an input method
    if (event.key === "Enter" || (event.key === "," && !unfinished(input.value))) {
      event.preventDefault();
      add(split(input.value));
    } else if (event.key === "Backspace" && !input.value && labels.length) {
      remove(labels.at(-1));
    }
  });
  input.addEventListener("input", () => {
    complain();
    if (SEPARATOR.test(input.value) && !unfinished(input.value)) add(split(input.value)); // telephones send no keys
  });
  input.addEventListener("paste", (event) => {
    const pasted = event.clipboardData.getData("text");
    if (!SEPARATOR.test(pasted)) return;
    event.preventDefault();
    add(split(input.value + pasted));
  });
  input.addEventListener("blur", () => add(split(input.value)));
  part("chipbox").addEventListener("click", (event) => event.target === part("chipbox") && input.focus());
  part("clear").addEventListener("click", () => {
    labels = [];
    complain();
    update();
    input.focus();
  });
  part("list").addEventListener("click", () => part("list-file").click());
  part("list-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) fromFile(file, add, complain);
  });
  draw();
}

async function fromFile(file, add, complain) {
  let content;
  try {
    content = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    return complain("ca.problem.list", { name: file.name });
  }
  if (content.includes("\0")) return complain("ca.problem.list", { name: file.name });
  const found = split(content.split(/\r?\n/).filter((line) => !line.trimStart().startsWith("#")).join("\n"));
  if (!found.length) return complain("ca.problem.list_empty", { name: file.name });
  add(found);
}

// As the server does (labels.py): at commas of any script, semicolons, tabs and line ends, but not
// within quotes; or a JSON list.
const SEPARATORS = ",;\\t\\r\\n\\uff0c\\u3001\\uff1b\\u060c\\u061b";
const QUOTES = ['""', "\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb", "\u300c\u300d"];
const QUOTED = QUOTES.map(([start, end]) => `${start}[^${end}]*${end}`).join("|");
const LABEL = new RegExp(`\\s*(?:(${QUOTED})(?=\\s*(?:[${SEPARATORS}]|$))|([^${SEPARATORS}]+))`, "g");
const SEPARATOR = new RegExp(`[${SEPARATORS}]`);

function split(words) {
  const plain = words.replace(/^\ufeff/, "");
  const found = listed(plain) ?? [...plain.matchAll(LABEL)].map(([, quoted, other]) => (quoted ? quoted.slice(1, -1) : other));
  return found.map((label) => label.trim().replace(/\s+/g, " ")).filter(Boolean);
}

function listed(words) {
  if (!words.trimStart().startsWith("[")) return null;
  try {
    const found = JSON.parse(words);
    return Array.isArray(found) && found.every((label) => typeof label === "string") ? found : null;
  } catch {
    return null;
  }
}

// A label that has begun with a quote goes on until the quote ends.
function unfinished(words) {
  return QUOTES.some(([start, end]) => words.trimStart().startsWith(start) && !words.trimStart().slice(1).includes(end));
}
