// Thumbnails of the catalogue's pictures in an `img`.

import { below, thumbnailOf } from "./address.js";
import { hasKey, keyHeaders } from "./key.js";

// `thumbnailUrl` is an address that works without a key. Where there is none the picture is fetched with the key, since
// an `img` sends none. Once the picture is there, its `blob:` address may be let go of, unless it is to be `kept`.
export async function showThumbnail(image, { mediaId, thumbnailUrl }, { kept = false } = {}) {
  const address = thumbnailUrl ? below(thumbnailUrl) : thumbnailOf(mediaId);
  image.dataset.of = mediaId;
  if (thumbnailUrl || !hasKey()) {
    image.src = address;
    return;
  }
  try {
    const answer = await fetch(address, { headers: keyHeaders() });
    if (!answer.ok) throw new Error(answer.status);
    const blob = await answer.blob();
    if (image.dataset.of !== mediaId) return; // it shows something else by now
    image.src = URL.createObjectURL(blob);
    if (!kept) image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    if (image.dataset.of === mediaId) image.dispatchEvent(new Event("error"));
  }
}
