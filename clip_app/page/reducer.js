// A worker: reduces pictures beside the page, which stays quick meanwhile.

import { reduceToBlob } from "./reduce.js";

const TALL = 200; // pixels of a thumbnail

self.onmessage = async ({ data: { id, file, resize } }) => {
  const small = await reduceToBlob(file, resize).catch(() => null);
  const thumbnail = await thumb(small?.blob ?? file).catch(() => null);
  self.postMessage({ id, blob: small?.blob ?? null, width: small?.width, height: small?.height, thumbnail });
};

async function thumb(blob) {
  const picture = await createImageBitmap(blob, { resizeHeight: TALL, resizeQuality: "medium" });
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 });
}
