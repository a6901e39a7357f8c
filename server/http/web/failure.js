// What went wrong, as a sentence for the person at the page, and what can be done about it.

import { fileSize } from "./wording.js";

// What helps with an error of the server, by its code, where its own sentence does not say so.
const ADVICE = {
  not_a_picture: "Choose a photo or a drawing that is saved as JPEG, PNG or WebP.",
  unreadable_picture: "Open it in another program, save it again as JPEG, and choose that file.",
  unsupported_picture: "Save it as JPEG or PNG, and choose that file.",
  picture_too_large: "Save it in a smaller size, and choose that file.",
  upload_too_large: "Save it in a smaller size, and choose that file.",
  no_picture: "Choose another file.",
  media_not_found: "It may have been taken out of the catalogue. Start again with a picture of your own or with words.",
  no_text_tower: "Search with a picture instead.",
  text_too_long: "Use fewer words.",
};

const AGAIN_LATER = new Set([408, 425, 429]);

export class Failure extends Error {
  // `status`: of the answer, 0 where none came; `retryAfter`: seconds, 0 where the server named no time.
  constructor(sentence, { status = 0, code = "", requestId = "", retryAfter = 0, again = null } = {}) {
    super(sentence);
    Object.assign(this, { status, code, requestId, retryAfter });
    this.advice = ADVICE[code] ?? "";
    this.keyWanted = status === 401; // the server takes no request without a key, or without another one
    this.again = again ?? (status >= 500 || AGAIN_LATER.has(status)); // whether the same may work another time
  }
}

export function refused(status, answer, retryAfterHeader) {
  const sentence = answer?.error || `The server answered ${status} without saying why.`;
  const retryAfter = seconds(retryAfterHeader);
  return new Failure(sentence, { status, code: answer?.code, requestId: answer?.requestId, retryAfter });
}

export function unreachable(files, limit) {
  const large = files.find((file) => file.size > limit);
  if (large) {
    return new Failure(
      `The connection broke while the picture was being sent. It has ${fileSize(large.size)}, and this server accepts ` +
        `${fileSize(limit)}. Save it in a smaller size, and choose that file.`,
      { again: false },
    );
  }
  return new Failure(
    "The server could not be reached. Check that it is running and that you are connected, then try again.",
    { again: true },
  );
}

function seconds(header) {
  if (!header) return 0;
  const left = /^\s*\d+\s*$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(left) ? Math.max(0, Math.ceil(left)) : 0;
}
