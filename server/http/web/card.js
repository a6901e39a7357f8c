// A match as a card: its picture, which leads on to what is like it; what is known of it; and ways to go on from it.

import { addressOf } from "./address.js";
import { element, unseen } from "./element.js";
import { queryOf } from "./query.js";
import { showThumbnail } from "./thumbnail.js";
import { GRADES, NAMED, percent } from "./wording.js";

// `figures`: whether its percentage says how like it is, which of words and of several things at once it does not.
// `rank` counts from 1. `on` has what to do for `like`, `more` and `less`, each with a picture as a part of a query.
export function card(match, { rank, figures, on }) {
  const exact = figures && match.similarity >= 100;
  const item = element("li", exact ? "result exact" : "result", [], {
    dataset: { testid: "result", mediaId: match.mediaId, productId: match.productId },
  });
  const part = partOf(match);
  item.append(link(match, part, { rank, figures, exact, on }));
  const others = (match.media ?? []).filter((one) => one.mediaId !== match.mediaId);
  if (others.length) item.append(otherPictures(match, others, on));
  item.append(ways(match, part, on));
  return item;
}

const partOf = (match) => ({ mediaId: match.mediaId, name: match.productName, thumbnailUrl: match.thumbnailUrl });

function link(match, part, { rank, figures, exact, on }) {
  const frame = element("span", "frame", [picture(match, { dataset: { testid: "result-thumbnail" } })]);
  if (exact) frame.append(element("span", "badge", "Exact match"));
  const name = element("span", "result-name", match.productName, { title: match.productName, dataset: { testid: "result-name" } });
  const said = figures
    ? element("span", "result-similarity", percent(match.similarity), { dataset: { testid: "result-similarity" } })
    : element("span", "result-rank", `No. ${rank}`, { dataset: { testid: "result-rank" } });
  const line = element("span", "result-figures", [said]);
  const named = NAMED[match.explain?.words?.by]; // by the words that were searched for, whatever it looks like
  if (named || GRADES[match.grade]) {
    const kind = named ? "named" : match.grade;
    const grade = element("span", `result-grade ${kind}`, named ?? GRADES[match.grade], { dataset: { testid: "result-grade" } });
    line.append(" ", grade);
  }
  // Its name for a screen reader is what it shows, and then what it does.
  const made = element("a", "card", [frame, name, " ", line, unseen(". Find pictures like it.")]);
  made.href = addressOf(queryOf(part));
  made.addEventListener("click", (event) => leads(event, () => on.like(part)));
  return made;
}

// A click that asks for a new tab or window is left to the browser.
function leads(event, go) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go();
}

function picture(match, given = {}) {
  const image = element("img", "", [], { loading: "lazy", decoding: "async", alt: "", ...given });
  image.addEventListener("error", () => image.parentElement?.classList.add("missing"));
  showThumbnail(image, match);
  return image;
}

// Further pictures of the product that match as well.
function otherPictures(match, others, on) {
  const made = others.map((one, number) => {
    const image = picture(one);
    const way = element("a", "other frame", [image, unseen(`Find pictures like picture ${number + 2} of ${match.productName}`)]);
    const part = { ...partOf(one), name: match.productName };
    way.href = addressOf(queryOf(part));
    way.addEventListener("click", (event) => leads(event, () => on.like(part)));
    return element("li", "", [way]);
  });
  return element("ul", "others", made, {
    dataset: { testid: "result-others" },
    aria: { label: `Other pictures of ${match.productName}` },
  });
}

function ways(match, part, on) {
  const made = element("div", "ways");
  const way = (sign, word, title, testid, go) => {
    const names = [element("span", "sign", sign, { aria: { hidden: "true" } }), word, unseen(` like ${match.productName}`)];
    const button = element("button", "way", names, { type: "button", title, dataset: { testid } });
    button.addEventListener("click", () => go(part));
    made.append(button);
  };
  way("+", "More", "More like this", "more-like", on.more);
  way("−", "Less", "Less like this", "less-like", on.less);
  if (/^https?:\/\//i.test(match.url ?? "")) {
    const inside = ["View", unseen(` ${match.productName} in the shop`)];
    made.append(element("a", "way view", inside, { href: match.url, rel: "noopener", title: "To its page", dataset: { testid: "product-link" } }));
  }
  return made;
}

// What stands there while an answer is long in coming.
export function placeholders() {
  return Array.from({ length: 8 }, () => {
    const inside = [element("span", "frame"), element("span", "line"), element("span", "line short")];
    return element("li", "result waiting", inside, { aria: { hidden: "true" } });
  });
}
