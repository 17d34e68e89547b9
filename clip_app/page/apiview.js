// Gradio's own view of the API, for people who do not see or point: names for its buttons, and tabs that keys reach.

import { text } from "./page.js";

function mend(view) {
  for (const button of view.querySelectorAll(".banner-wrap button:not([aria-label])")) {
    if (!button.textContent.trim()) button.setAttribute("aria-label", text("ca.close"));
  }
  for (const button of view.querySelectorAll(".copy-button:not([aria-label])")) button.setAttribute("aria-label", text("ca.copy"));
  for (const tab of view.querySelectorAll("li.snippet")) {
    tab.setAttribute("aria-checked", String(tab.classList.contains("current-lang")));
    if (tab.hasAttribute("tabindex")) continue;
    tab.setAttribute("role", "radio");
    tab.parentElement.setAttribute("role", "radiogroup");
    tab.tabIndex = 0;
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      tab.click();
    });
  }
}

export function watchApiView() {
  const observer = new MutationObserver(() => {
    const view = document.querySelector(".api-docs");
    if (view) mend(view);
  });
  observer.observe(document.body, { childList: true, subtree: true, attributeFilter: ["class"] });
}
