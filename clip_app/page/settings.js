// What is asked, kept in the address so that a link opens the same question.
// In the fragment: a server never sees it, nor writes it into its log.

export const TEMPLATE = "a photo of a {}.";
export const MOST_LABELS = 1000;
export const LONGEST_LABEL = 200;

// null stands for what the model is asked by default.
export function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const names = (key) => given.get(key)?.split(",").filter(Boolean);
  const top = Number(given.get("top"));
  return {
    groups: given.has("groups") ? names("groups") : null,
    labels: given.getAll("label").filter((label) => label.length <= LONGEST_LABEL).slice(0, MOST_LABELS),
    template: usable(given.get("prompt") ?? "") ? given.get("prompt") : TEMPLATE,
    independent: given.get("alone") === "1",
    top: Number.isInteger(top) && top >= 1 && top <= 1000 ? top : null,
    exact: given.get("exact") === "1",
  };
}

export function toAddress(settings) {
  const wanted = new URLSearchParams();
  if (settings.groups) wanted.set("groups", settings.groups.join(","));
  for (const label of settings.labels) wanted.append("label", label);
  if (settings.template !== TEMPLATE) wanted.set("prompt", settings.template);
  if (settings.independent) wanted.set("alone", "1");
  if (settings.top) wanted.set("top", settings.top);
  if (settings.exact) wanted.set("exact", "1");
  const fragment = wanted.toString();
  history.replaceState(history.state, "", location.pathname + location.search + (fragment ? `#${fragment}` : ""));
}

export function usable(template) {
  return template.length <= LONGEST_LABEL && template.split("{}").length === 2;
}
