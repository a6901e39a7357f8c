// Pictures and words coming in: chosen, photographed, dropped, pasted, typed.

import { byId } from "./element.js";

const words = byId("text");
const dropHint = byId("drop-hint");

const isField = (target) => Boolean(target.closest?.("input, textarea, select, [contenteditable]"));
const carries = (event, type) => Boolean(event.dataTransfer?.types.includes(type));

// The server decides what a picture is; this only chooses which of several files to send.
const looksLikePicture = (file) => file.type.startsWith("image/") || /\.(heic|heif|avif|tiff?|jxl|webp)$/i.test(file.name);

function chosen(files) {
  const file = files.find(looksLikePicture) ?? files[0];
  const note = files.length > 1 ? `Of the ${files.length} files, only “${file.name}” is used: one search uses one picture.` : "";
  return { file, name: file.name || "picture", note };
}

// `on` has what to do with a `picture`, with one that is to be `added` to the query, with `words`, with words that go
// `beside` the picture, and what to `say` where something cannot be used. `reads`: whether words are understood.
export function beginIntake({ reads, on }) {
  for (const [id, take] of [["file", on.picture], ["camera", on.picture], ["add-file", on.added]]) {
    byId(id).addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = ""; // so that choosing the same file again is a change again
      if (files.length) take(chosen(files));
    });
  }
  takeDropped(on);
  takePasted(reads, on);
  if (reads) takeTyped(on);
  // In the beginning the whole field is a target for the mouse; the keyboard has the file input itself.
  byId("ask").addEventListener("click", (event) => {
    if (document.body.dataset.view === "start" && !event.target.closest("input, label, button")) byId("file").click();
  });
}

function takeTyped(on) {
  byId("words").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = words.value.trim();
    if (!text) return words.focus();
    if (matchMedia("(hover: none)").matches) words.blur(); // the keyboard of a phone would cover the matches
    on.words(text);
  });
  byId("refine").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("refine-text").value.trim();
    if (!text) return byId("refine-text").focus();
    byId("refine-text").value = "";
    on.beside(text);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isField(event.target) && !["file", "range", "checkbox"].includes(event.target.type)) return;
    event.preventDefault();
    words.focus();
    words.select();
  });
}

function takePasted(reads, on) {
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) {
      event.preventDefault();
      on.picture(chosen(files));
    } else if (!isField(event.target)) {
      const text = event.clipboardData?.getData("text/plain").trim();
      if (text && reads) {
        event.preventDefault();
        words.value = text; // searched for when its owner says so: it may not have been meant for us
        words.focus();
      } else {
        on.say("There is no picture in what you pasted. Copy the picture itself, or save it and choose the file.");
      }
    }
  });
}

function takeDropped(on) {
  const hint = (shown) => (dropHint.hidden = !shown);
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      if (!carries(event, "Files") && !carries(event, "text/uri-list")) return;
      event.preventDefault(); // without this the browser leaves the page and opens the file
      event.dataTransfer.dropEffect = "copy";
      hint(true);
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget === null && hint(false));
  addEventListener("dragend", () => hint(false));
  addEventListener("keydown", (event) => event.key === "Escape" && hint(false));
  addEventListener("dragstart", (event) => event.target.closest?.("a, img") && event.preventDefault()); // only from outside

  addEventListener("drop", (event) => {
    hint(false);
    if (!event.dataTransfer) return;
    const files = [...event.dataTransfer.files];
    if (!files.length && !carries(event, "text/uri-list")) return;
    event.preventDefault();
    const first = [...event.dataTransfer.items].find((item) => item.kind === "file");
    if (!files.length) {
      on.say("That is a link, not a picture. Save the picture first, then drop the file.");
    } else if (files.length === 1 && first?.webkitGetAsEntry?.()?.isDirectory) {
      on.say("That is a folder. Drop a picture from it.");
    } else {
      on.picture(chosen(files));
    }
  });
}
