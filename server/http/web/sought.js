// What is searched with, beside the matches: the picture with its name, and the words in their box.

import { byId } from "./element.js";
import { isPicture, nameOf, shown, titleOf } from "./query.js";
import { showCrop } from "./crop.js";
import { showThumbnail } from "./thumbnail.js";
import { fileSize } from "./wording.js";

const picture = byId("query-picture");
const figure = byId("query");
const words = byId("text");

let beside = null; // the part that is shown

// The words that stand alone in the box; those beside a picture are chips.
export function wordsOf(query) {
  const texts = query?.parts.filter((part) => !isPicture(part)) ?? [];
  return texts.length === 1 && shown(query) < 0 ? texts[0].text : "";
}

export function showSought(query) {
  const at = shown(query);
  const part = query.parts[at];
  words.value = wordsOf(query);
  document.body.dataset.by = part ? "picture" : "words";
  document.title = titleOf(query) ? `${titleOf(query)} – Twinlens` : "Twinlens";
  if (part && beside && part.file === beside.file && part.mediaId === beside.mediaId) {
    beside = part;
    showCrop(part.crop);
    return; // the same picture: it would only flicker
  }
  letGo();
  if (!part) return;
  beside = part;
  figure.hidden = false;
  byId("no-preview").hidden = true;
  byId("no-preview-why").textContent = part.file ? "This browser has no preview of it" : "No thumbnail";
  byId("query-origin").textContent = part.file ? fileSize(part.file.size) : "From the catalogue";
  showName(nameOf(part));
  picture.hidden = false;
  if (part.file) picture.src = URL.createObjectURL(part.file);
  else showThumbnail(picture, part, { kept: true });
  showCrop(part.crop);
}

// Nothing is searched with.
export function forgetSought() {
  letGo();
  words.value = "";
  delete document.body.dataset.by;
  document.title = "Twinlens";
}

export function showName(name) {
  byId("query-name").textContent = byId("query-name").title = byId("no-preview-name").textContent = name;
  picture.alt = name ? `Searching with: ${name}` : "The picture to search with";
}

function letGo() {
  beside = null;
  delete picture.dataset.of;
  if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
  picture.removeAttribute("src");
  figure.hidden = picture.hidden = true;
  showCrop(null);
}

picture.addEventListener("error", () => {
  picture.hidden = true;
  byId("no-preview").hidden = false;
});
