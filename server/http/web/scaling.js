// A picture that is larger than the server accepts is made smaller here. It is drawn upright, as the browser shows it.

import { Failure } from "./failure.js";
import { fileSize } from "./wording.js";

const LONGEST_SIDE = 2048; // pixels: models look at a few hundred

// The file, or a smaller one in its place that is at most so many bytes. Throws Failure where this browser cannot read it.
export async function fitting(file, most, { always = false } = {}) {
  if (!always && file.size <= most) return { file, note: "" };
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Failure(
      `“${file.name}” has ${fileSize(file.size)}. That is larger than this server accepts, ${fileSize(most)}, and this ` +
        "browser cannot read it to make it smaller. Save it as a smaller JPEG, and choose that file.",
      { again: false },
    );
  }
  try {
    for (let side = LONGEST_SIDE; side >= 256; side /= 2) {
      const blob = await drawn(picture, side);
      if (blob && blob.size <= most) {
        const smaller = new File([blob], file.name, { type: blob.type });
        return { file: smaller, note: `Made smaller before it was sent: ${fileSize(file.size)} is more than the server accepts.` };
      }
    }
  } finally {
    picture.close();
  }
  throw new Failure(`“${file.name}” could not be made smaller. Save it as a smaller JPEG, and choose that file.`, { again: false });
}

function drawn(picture, side) {
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.92)); // as PNG where there is no WebP
}
