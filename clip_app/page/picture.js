// Where the picture comes in: chosen, dropped, pasted, from the camera or an example.

import { drawExamples } from "./examples.js";
import { dropped, pictures } from "./given.js";
import { address, hear, make, size, tell, text } from "./page.js";
import { reduce, whole } from "./reduce.js";

// Calls `changed` with the picture, or with null once it is removed.
export function pictureInput(root, settings, changed) {
  const part = (id) => root.querySelector(`#ca-${id}`);
  const [file, drop, preview] = [part("file"), part("drop"), part("preview")];
  // Fingers neither drop nor paste.
  const invitation = matchMedia("(pointer: coarse)").matches ? text("ca.drop.touch") : text("ca.drop");
  part("invitation").textContent = invitation;
  const limits = { bytes: Infinity };
  let current = null; // the file as it was given
  let turn = 0;

  const complain = (key, values) => (part("picture-problem").textContent = key ? text(key, values) : "");

  // One file is a picture, whatever it is called; of several, of folders and zips those are taken that can be some.
  async function take(files, named = [...files].map((file) => ({ name: file.webkitRelativePath || file.name, file }))) {
    if (limits.closed) return; // there is no model, and none is coming
    complain();
    if (!named.length) return complain("ca.problem.no_picture");
    const found = await pictures(named);
    const given = found.length || named.length > 1 ? found : [{ ...named[0], open: async () => named[0].file }];
    if (!given.length) return complain("ca.problem.no_picture");
    if (given.length > 1 || given[0].problem || limits.collecting) return tell("many", given);
    await open(given[0]);
  }

  async function open(item) {
    const chosen = await item.open().catch(() => null);
    if (chosen) return single(chosen);
    complain("ca.problem.unreadable");
  }

  async function single(chosen) {
    if (!chosen.size) return complain("ca.problem.empty", { name: chosen.name });
    current = chosen;
    await show();
  }

  // Again when the option changes, or the model: the file is still there.
  async function show() {
    if (!current) return;
    const mine = ++turn;
    const small = settings().exact ? null : await reduce(current, limits.resize);
    if (!small && current.size > limits.bytes) {
      return complain("ca.problem.file_large", { size: size(current.size), limit: size(limits.bytes) });
    }
    const picture = small ?? (await whole(current));
    if (mine !== turn) return; // overtaken by a later one
    draw(picture.shown);
    changed({ ...picture, file: current });
  }

  function draw(shown) {
    const name = current?.name;
    if (preview.src) URL.revokeObjectURL(preview.src);
    if (shown) preview.src = URL.createObjectURL(current);
    else preview.removeAttribute("src");
    preview.hidden = !shown;
    part("no-preview").hidden = shown || !current;
    part("no-preview").textContent = current ? text("ca.nopreview", { name }) : "";
    drop.classList.toggle("ca-full", Boolean(current));
    if (current) drop.setAttribute("aria-label", text("ca.drop.named", { name }));
    else drop.removeAttribute("aria-label"); // it is named by what is written in it
    part("remove").hidden = !current;
    part("strip").classList.toggle("ca-away", !current);
  }

  function remove() {
    current = null;
    turn++;
    complain();
    draw(false);
    changed(null);
    drop.focus();
  }

  drop.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) take([...file.files]);
    file.value = ""; // the same file may be chosen again
  });
  part("folder").addEventListener("click", () => part("folder-files").click());
  part("folder-files").addEventListener("change", ({ target }) => {
    if (target.files.length) take([...target.files]);
    target.value = "";
  });
  part("remove").addEventListener("click", remove);
  dropping(drop, take, complain);
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (!pasted.length) return; // text goes where the cursor is
    event.preventDefault();
    take(pasted);
  });
  camera(part, take, complain);
  hear("status", (status) => {
    limits.resize = status.resize;
    limits.bytes = status.max_bytes ?? Infinity;
    limits.closed = drop.disabled = part("camera").disabled = part("folder").disabled = status.phase === "failed";
    drawExamples(part("strip"), limits.closed ? [] : status.examples);
  });
  hear("open", open);
  hear("collection", ({ active, aside }) => {
    limits.collecting = active;
    drop.classList.toggle("ca-low", active && !aside && !current); // the pictures are beside it, or below
  });
  hear("example", async (name) => take([await download(address(`examples/${name}`))]));
  draw(false);
  return { show };
}

function dropping(drop, take, complain) {
  const over = (on) => drop.classList.toggle("ca-over", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // a picture dropped beside the field must not replace the page
    over(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? over(false));
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    over(false);
    // All of it before the event is over.
    const from = event.dataTransfer.getData("text/uri-list").split(/\r?\n/)[0] ?? "";
    const files = [...event.dataTransfer.files];
    const walked = await dropped(event.dataTransfer);
    if (walked) return take(files, walked);
    if (files.length) return take(files);
    if (/^(data:image\/|blob:)/.test(from) || from.startsWith(location.origin)) return take([await download(from)]);
    complain(/^https?:/.test(from) ? "ca.problem.address" : "ca.problem.no_picture");
  });
}

async function download(from) {
  const blob = await (await fetch(from)).blob();
  return new File([blob], from.startsWith("data:") ? "picture" : from.split("/").pop(), { type: blob.type });
}

function camera(part, take, complain) {
  const [dialog, video] = [part("camera-dialog"), part("camera-video")];
  const stop = () => video.srcObject?.getTracks().forEach((track) => track.stop());
  part("camera").addEventListener("click", async () => {
    if (!navigator.mediaDevices) { // over plain HTTP: the telephone's own camera
      const input = make("input", { type: "file", accept: "image/*", capture: "environment", onchange: () => take([...input.files]) });
      return input.click();
    }
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      return complain("ca.camera.refused", { reason: error.name });
    }
    dialog.showModal();
    await video.play();
  });
  part("camera-take").addEventListener("click", async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => take([new File([blob], "camera.jpg", { type: blob.type })]), "image/jpeg", 0.95);
  });
  part("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
}
