// The parts of a query of several, each with its weight and a way to take it out.

import { byId, element, unseen } from "./element.js";
import { isPicture, nameOf, stepped, weightOf } from "./query.js";
import { showThumbnail } from "./thumbnail.js";

const list = byId("parts");
const addresses = new Map(); // of the files that chips show, so that they can be let go of

// `on` has what to do when a weight was `weighed`, with the part's place and its weight, and when one was `removed`.
export function showParts(query, on) {
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.place : null;
  list.hidden = !query || (query.parts.length < 2 && weightOf(query.parts[0], query) > 0);
  list.replaceChildren(...(list.hidden ? [] : query.parts.map((part, at) => chip(part, at, query, on))));
  letGo(list.hidden ? [] : query.parts);
  if (focused) list.querySelector(`[data-place="${focused}"]:not(:disabled)`)?.focus({ preventScroll: true });
}

function chip(part, at, query, on) {
  const weight = weightOf(part, query);
  const name = nameOf(part) || "a picture";
  const said = weight < 0 ? `Not like ${name}` : name;
  const button = (text, label, place, go) => {
    const made = element("button", "chip-button", [element("span", "", text, { aria: { hidden: "true" } }), unseen(label)], {
      type: "button",
      title: label,
      dataset: { place: `${place}-${at}`, testid: place },
    });
    if (go) made.addEventListener("click", go);
    else made.disabled = true;
    return made;
  };
  const [lighter, heavier] = [stepped(weight, -1), stepped(weight, 1)];
  const figure = element("span", "chip-weight", [`×${Math.abs(weight)}`], { dataset: { testid: "part-weight" } });
  return element(
    "li",
    weight < 0 ? "chip against" : "chip",
    [
      ...(isPicture(part) ? [thumb(part)] : []),
      element("span", "chip-name", said, { title: said }),
      button("−", `Count ${name} less`, "part-lighter", lighter === null ? null : () => on.weighed(at, lighter)),
      figure,
      button("+", `Count ${name} more`, "part-heavier", heavier === null ? null : () => on.weighed(at, heavier)),
      button("×", `Take out ${name}`, "part-remove", () => on.removed(at)),
    ],
    { dataset: { testid: "part" } },
  );
}

function thumb(part) {
  const image = element("img", "chip-picture", [], { alt: "", width: 28, height: 28 });
  image.addEventListener("error", () => (image.hidden = true));
  if (part.file) {
    if (!addresses.has(part.file)) addresses.set(part.file, URL.createObjectURL(part.file));
    image.src = addresses.get(part.file);
  } else {
    showThumbnail(image, part);
  }
  return image;
}

function letGo(parts) {
  for (const [file, address] of addresses) {
    if (parts.some((part) => part.file === file)) continue;
    URL.revokeObjectURL(address);
    addresses.delete(file);
  }
}
