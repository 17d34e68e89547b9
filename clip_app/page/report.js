// What a visitor takes away: a table, or one picture of photograph and bars.

import { heading, make, percent, text } from "./page.js";

export function save(blob, name, ending) {
  const url = URL.createObjectURL(blob);
  const stem = (name || "picture").replace(/\.\w+$/, "");
  make("a", { href: url, download: `${stem}-labels.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function asTable(result) {
  const lines = [["file", "group", "label", "confidence", "similarity", "no_match"]];
  for (const group of result.groups) {
    for (const { label, confidence, similarity } of group.labels) {
      lines.push([result.image.name, group.name, label, confidence, similarity, group.no_match]);
    }
  }
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}

// A cell that a spreadsheet would compute is told to be text.
function quoted(value) {
  const words = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
}

const WIDE = 1200, EDGE = 40, PHOTO = 520, ROW = 46, HEAD = 44;

export async function asImage({ result, verdict, titles }, picture) {
  const photo = picture.shown ? await createImageBitmap(picture.file) : null;
  const groups = result.groups.map((group) => ({ ...group, labels: group.labels.filter((score, i) => !i || score.confidence >= 0.01).slice(0, 8) }));
  const rows = groups.reduce((sum, group) => sum + HEAD + 12 + ROW * (group.labels.length + 1), 0);
  const tall = photo ? Math.min(700, (PHOTO * photo.height) / photo.width) : 0;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [WIDE, 2 * EDGE + 70 + Math.max(rows, tall) + 40];
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const best = verdict.level === "none" ? text("ca.nothing") : text("ca.best", verdict);
  write(pen, best, EDGE, EDGE + 30, "bold 34px system-ui, sans-serif", "#0f172a", WIDE - 2 * EDGE);
  const top = EDGE + 70;
  if (photo) {
    const scale = Math.min(PHOTO / photo.width, 700 / photo.height);
    pen.drawImage(photo, EDGE, top, photo.width * scale, photo.height * scale);
    photo.close();
  }
  drawBars(pen, groups, titles, photo ? EDGE + PHOTO + 40 : EDGE, top);
  const { model } = result;
  write(pen, `${model.id} (${model.revision.slice(0, 7)}), ${model.engine} ${model.precision} · ${text("ca.share")}`, EDGE, canvas.height - 24, "18px system-ui, sans-serif", "#475569", WIDE - 2 * EDGE);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function drawBars(pen, groups, titles, left, top) {
  const width = WIDE - EDGE - left;
  let y = top;
  for (const group of groups) {
    write(pen, heading(group.name, titles), left, y + 22, "bold 20px system-ui, sans-serif", "#475569", width);
    y += HEAD;
    for (const [label, share, colour] of [...group.labels.map((score) => [score.label, score.confidence, "#4f46e5"]), [text("ca.none"), group.no_match, "#94a3b8"]]) {
      write(pen, label, left, y + 14, "20px system-ui, sans-serif", "#0f172a", width - 100);
      write(pen, percent(share), left + width - 90, y + 14, "20px system-ui, sans-serif", "#0f172a", 90);
      pen.fillStyle = "#e2e8f0";
      pen.fillRect(left, y + 22, width, 10);
      pen.fillStyle = colour;
      pen.fillRect(left, y + 22, width * share, 10);
      y += ROW;
    }
    y += 12;
  }
}

function write(pen, words, x, y, font, colour, width) {
  pen.font = font;
  pen.fillStyle = colour;
  let shown = words;
  while (pen.measureText(shown).width > width && shown.length > 2) shown = `${shown.slice(0, -2)}…`;
  pen.fillText(shown, x, y);
}
