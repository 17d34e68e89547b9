// A picture file to what travels inside the question.

import { canResample, resample } from "./resample.js";

const LONGEST = 50; // times the shorter side: longer ones the server cuts, and says so

// Reduce a file to what the model is shown, by the resize that the model asks for: upright,
// without EXIF and so without the place. Answers null where that cannot be done here.
export async function reduce(file, resize) {
  const small = await reduceToBlob(file, resize);
  return small && { url: await asUrl(small.blob), sent: small.blob.size, width: small.width, height: small.height, shown: true };
}

export async function reduceToBlob(file, resize) {
  if (!resize || !canResample(resize.filter)) return null;
  if (!(await plain(file))) return null;
  const whole = await decode(file);
  if (!whole) return null;
  const { width, height } = whole;
  const short = Math.min(width, height);
  if (Math.max(width, height) > LONGEST * short) return null;
  const scaled = (side) => Math.trunc((resize.shortest * side) / short);
  const [newWidth, newHeight] = resize.shortest ? [scaled(width), scaled(height)] : [resize.width, resize.height];
  const canvas = new OffscreenCanvas(width, height); // a worker has no other
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(whole, 0, 0);
  whole.close();
  const pixels = pen.getImageData(0, 0, width, height);
  if (!opaque(pixels)) return null;
  const small = resample(pixels, newWidth, newHeight, resize.filter);
  [canvas.width, canvas.height] = [newWidth, newHeight];
  pen.putImageData(small, 0, 0);
  return { blob: await canvas.convertToBlob({ type: "image/png" }), width, height }; // without loss
}

export async function whole(file) {
  const seen = await decode(file);
  const found = { url: await asUrl(file), sent: file.size, width: seen?.width, height: seen?.height, shown: seen !== null };
  seen?.close();
  return found;
}

// Deep pixels, transparency and files that end early are for the server, which looks for what is meant.
async function plain(file) {
  const bytes = async (from, to) => new Uint8Array(await file.slice(from, to).arrayBuffer());
  const head = await bytes(0, 32);
  const tail = await bytes(Math.max(0, file.size - 64), file.size);
  if (head[0] === 0xff && head[1] === 0xd8) return tail.some((byte, i) => byte === 0xff && tail[i + 1] === 0xd9);
  if (head[0] === 0x89 && head[1] === 0x50) return head[24] <= 8 && String.fromCharCode(...tail).includes("IEND");
  return true;
}

function opaque({ data }) {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

function decode(file) {
  // Colours as they are in the file: the server does not convert profiles either.
  return createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" }).catch(() => null);
}

function asUrl(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}
