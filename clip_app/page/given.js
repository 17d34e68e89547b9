// What was dropped or chosen, as a list of pictures: files, folders with all in them, zips.

import { isZip, unzip } from "./unzip.js";

const PICTURE = /\.(jpe?g|jpe|jfif|mpo|png|webp|avif|gif|bmp|tiff?|ppm|pgm|hei[cf])$/i;

// Files of a drop, folders walked through: [{ name, file }].
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return null;
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed)).catch(() => null);
    if (file) found.push({ name: entry.fullPath.replace(/^\//, ""), file });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // it gives a hundred at a time
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)).catch(() => []);
    if (!some.length) return;
    for (const one of some) await walk(one, found);
  }
}

// Of several files those that can be pictures, with what is in zips, as [{ name, open or problem }]: a name is a path.
export async function pictures(files) {
  const found = [];
  for (const { name, file } of files) {
    if (await isZip(file)) found.push(...(await unzip(file).catch(() => [{ name, problem: "zip" }])).filter(wanted));
    else if (wanted({ name, type: file.type })) found.push({ name, open: async () => file });
  }
  return found;
}

function wanted({ name, type, problem }) {
  return problem || PICTURE.test(name) || !/\.\w{1,5}$/.test(name) || Boolean(type?.startsWith("image/"));
}
