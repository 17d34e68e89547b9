// Pictures to try, of which the model that serves knows what they are.

import { address, make, tell, text } from "./page.js";

export function drawExamples(place, names) {
  if (place.childElementCount === names.length) return;
  place.replaceChildren(...names.map((name) => {
    const words = name.replace(/\.\w+$/, "").replaceAll("_", " ");
    const image = make("img", { src: address(`examples/${name}`), alt: "" });
    const label = text("ca.example", { name: words });
    return make("button", { type: "button", class: "ca-example", "aria-label": label, title: words, onclick: () => tell("example", name) }, image);
  }));
}
