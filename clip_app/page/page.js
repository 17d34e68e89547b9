// What the parts of the page share: words, elements, and events between the parts.

// "asked" and "hint" by the question, "again", "where" and "example" by the answer, "seen" by the map, "status" by the status.
const events = new EventTarget();
const latest = {}; // of the status, and of what nobody heard yet: a part that comes later hears it, too
const heard = new Set();

export function tell(name, detail) {
  if (name === "status" || !heard.has(name)) latest[name] = detail;
  events.dispatchEvent(new CustomEvent(name, { detail }));
}

export function hear(name, listener) {
  events.addEventListener(name, (event) => listener(event.detail));
  heard.add(name);
  if (!(name in latest)) return;
  const missed = latest[name];
  if (name !== "status") delete latest[name];
  listener(missed);
}

// Gradio takes a request that finds no server for the end of its page and builds it anew, without
// picture and labels. Here it is a failure like others, whose status is kept for what is said of it, and its error
// where the app itself refused it before it was read.
export const failure = { status: 0, error: null };
const plain = window.fetch.bind(window);
window.fetch = async (resource, options) => {
  if (!String(resource?.url ?? resource).includes("/gradio_api/run/")) return plain(resource, options);
  const found = await plain(resource, options).catch(() => null);
  if (!found?.ok) failure.status = found?.status ?? 0;
  failure.error = found && !found.ok ? ((await found.clone().json().catch(() => null))?.error ?? null) : null;
  return found ?? new Response('{"error": ""}', { status: 503 });
};

const translations = window.gradio_config?.i18n_translations ?? {};
const language = choose(navigator.languages ?? [navigator.language]);

function choose(wanted) {
  for (const tag of wanted) {
    const base = tag.toLowerCase().split("-")[0];
    if (base in translations) return base;
  }
  return "en";
}

document.documentElement.lang = language;

export function text(key, values = {}) {
  const words = translations[language]?.[key] ?? translations.en?.[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function known(key) {
  return key in (translations.en ?? {});
}

// A group's heading: ours in the visitor's language, an operator's as it was written.
export function heading(name, titles) {
  return known(`ca.group.${name}`) ? text(`ca.group.${name}`) : titles[name];
}

// Fill a part's markup with the visitor's language.
export function translate(root) {
  for (const node of root.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const node of root.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", text(node.dataset.label));
}

// Make an element. What visitors or the server wrote goes in as text, never as markup.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function percent(share) {
  const value = 100 * share;
  const digits = value >= 10 ? 0 : 1;
  return new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).format(share);
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function size(bytes) {
  return bytes < 1e6 ? `${number(Math.max(1, bytes / 1e3))} kB` : `${number(bytes / 1e6, 1)} MB`;
}

// The public address of something the app serves, behind any prefix and port.
export function address(path) {
  const root = new URL(window.gradio_config?.root || "/", location.href);
  return new URL(`${root.pathname.replace(/\/$/, "")}/${path}`, location.origin).href;
}
