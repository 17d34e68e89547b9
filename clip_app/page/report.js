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

// One row for each picture, group and label; a picture without an answer has one with its reason.
export function allAsTable(items) {
  const lines = [["file", "group", "label", "confidence", "similarity", "no_match", "error"]];
  for (const { name, result, error } of items) {
    if (!result) lines.push([name, "", "", "", "", "", error?.message ?? error?.code ?? ""]);
    for (const group of result?.groups ?? []) {
      for (const { label, confidence, similarity } of group.labels) lines.push([name, group.name, label, confidence, similarity, group.no_match, ""]);
    }
  }
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}

// Keywords for photo software: a sidecar beside each picture, all in one zip. XMP part 1 and 2: dc:subject.
export function sidecars(items) {
  return asZip(items.map(({ name, result }) => ({ name: `${name}.xmp`, content: new TextEncoder().encode(sidecar(result)) })));
}

const KEYWORD = 0.2; // a label with less is none

function sidecar(result) {
  const found = result.groups.flatMap((group) => group.labels.filter((score) => score.confidence >= Math.max(KEYWORD, group.no_match)));
  const words = [...new Set(found.map((score) => score.label))].map((label) => `     <rdf:li>${escaped(label)}</rdf:li>`);
  return `<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject>
    <rdf:Bag>
${words.join("\n")}
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
`;
}

const escaped = (words) => words.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

// A zip of files as they are, with names in UTF-8: APPNOTE.TXT 6.3.
function asZip(files) {
  const pieces = [];
  const entries = [];
  let place = 0;
  for (const { name, content } of files) {
    const path = new TextEncoder().encode(name.replace(/^(\.*\/)+/, ""));
    const common = [[20, 2], [0x0800, 2], [0, 2], [0, 2], [0x21, 2], [crc32(content), 4], [content.length, 4], [content.length, 4], [path.length, 2], [0, 2]];
    const head = fields([[0x04034b50, 4], ...common]);
    entries.push(fields([[0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [place, 4]]), path);
    pieces.push(head, path, content);
    place += head.length + path.length + content.length;
  }
  const size = entries.reduce((sum, one) => sum + one.length, 0);
  const end = fields([[0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [place, 4], [0, 2]]);
  return new Blob([...pieces, ...entries, end], { type: "application/zip" });
}

function fields(values) {
  const view = new DataView(new ArrayBuffer(values.reduce((sum, [, size]) => sum + size, 0)));
  let at = 0;
  for (const [value, size] of values) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(view.buffer);
}

function crc32(content) {
  let sum = 0xffffffff;
  for (const byte of content) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}
