// Where the picture comes in: chosen, dropped, pasted, from the camera or an example.

import { drawExamples } from "./examples.js";
import { address, hear, make, size, text } from "./page.js";
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

  async function take(files) {
    if (limits.closed) return; // there is no model, and none is coming
    const given = [...files].filter((one) => one.type.startsWith("image/") || !one.type || /\.(hei[cf]|tiff?)$/i.test(one.name));
    const chosen = given[0] ?? files[0];
    if (!chosen) return complain("ca.problem.no_picture");
    if (!chosen.size) return complain("ca.problem.empty", { name: chosen.name });
    complain(files.length > 1 ? "ca.problem.several" : null, { count: files.length });
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
    limits.closed = drop.disabled = part("camera").disabled = status.phase === "failed";
    drawExamples(part("strip"), limits.closed ? [] : status.examples);
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
    const files = [...event.dataTransfer.files];
    if (files.length) return take(files);
    const from = event.dataTransfer.getData("text/uri-list").split(/\r?\n/)[0] ?? "";
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
