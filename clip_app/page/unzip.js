// The pictures in a zip file, read in the browser and bounded: APPNOTE.TXT 6.3, without ZIP64.

const FILE = 0x04034b50, ENTRY = 0x02014b50, END = 0x06054b50;
export const MOST_FILES = 5000;
const MOST_BYTES = 100e6; // of one file, unpacked
const LONGEST_COMMENT = 65535;
const STORED = 0, DEFLATED = 8;

export async function isZip(file) {
  const head = new DataView(await file.slice(0, 4).arrayBuffer());
  return head.byteLength === 4 && [FILE, END].includes(head.getUint32(0, true));
}

// Lists what is in it as [{ name, open or problem }]; throws where it is no whole zip. A file is unpacked when it is
// opened, so that never more than a few are in memory.
export async function unzip(archive) {
  const found = [];
  for (const entry of await directory(archive)) {
    const parts = entry.name.split(/[/\\]/).filter((part) => !/^\.*$/.test(part)); // a name leads nowhere above the zip
    if (/[/\\]$/.test(entry.name) || parts.some((part) => part.startsWith(".") || part === "__MACOSX")) continue;
    found.push({ name: [archive.name, ...parts].join("/"), ...readable(archive, entry) });
  }
  return found;
}

function readable(archive, entry) {
  if (/\.zip$/i.test(entry.name)) return { problem: "zip_nested" };
  if (entry.flags & 1) return { problem: "zip_locked" };
  if (![STORED, DEFLATED].includes(entry.method)) return { problem: "zip_method" };
  return { open: () => unpack(archive, entry) };
}

async function directory(archive) {
  const start = Math.max(0, archive.size - 22 - LONGEST_COMMENT);
  const tail = new DataView(await archive.slice(start).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("no end");
  const [count, size, offset] = [tail.getUint16(end + 10, true), tail.getUint32(end + 12, true), tail.getUint32(end + 16, true)];
  if (count > MOST_FILES || offset + size > archive.size) throw new Error("not whole, or too many files");
  const view = new DataView(await archive.slice(offset, offset + size).arrayBuffer());
  const entries = [];
  for (let at = 0, i = 0; i < count; i++) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("damaged");
    const [named, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, named));
    entries.push({ name, flags: view.getUint16(at + 8, true), method: view.getUint16(at + 10, true), packed: view.getUint32(at + 20, true), place: view.getUint32(at + 42, true) });
    at += 46 + named + extra + comment;
  }
  return entries;
}

async function unpack(archive, { name, method, packed, place }) {
  const head = new DataView(await archive.slice(place, place + 30).arrayBuffer());
  if (head.getUint32(0, true) !== FILE) throw new Error("damaged");
  const start = place + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const content = archive.slice(start, start + packed);
  return new File([method === STORED ? content : await inflate(content)], name.split("/").pop());
}

// What an entry says of its size is not believed: the bytes are counted as they come.
async function inflate(content) {
  const reader = content.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const pieces = [];
  for (let size = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(pieces);
    size += value.length;
    if (size > MOST_BYTES) {
      await reader.cancel();
      throw new Error("too large");
    }
    pieces.push(value);
  }
}
