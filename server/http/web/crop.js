// A part of the picture, chosen on the picture itself: by dragging the frame and its corners, or with the arrow keys.

import { byId, element, unseen } from "./element.js";

const SMALLEST = 0.08; // of the picture's side
const STEP = 0.02;
const SETTLE_MS = 400; // how long the keys rest before the search runs
const WHOLE = [0, 0, 1, 1];
const FIRST = [0.15, 0.15, 0.85, 0.85];

// Each corner moves two of the four sides; the middle moves all of them.
const HANDLES = [
  { name: "middle", sides: [0, 1, 2, 3], label: "The part of the picture: move it with the arrow keys" },
  { name: "top-left", sides: [0, 1], label: "Its top left corner" },
  { name: "top-right", sides: [2, 1], label: "Its top right corner" },
  { name: "bottom-left", sides: [0, 3], label: "Its bottom left corner" },
  { name: "bottom-right", sides: [2, 3], label: "Its bottom right corner" },
];

const picture = byId("query-picture");
const toggle = byId("crop");
const area = element("div", "crop-area", [], { hidden: true });
const box = element("div", "crop-box", [], { role: "group", dataset: { testid: "crop-box" }, aria: { label: "Part of the picture" } });

let crop = null; // as it is on the picture; null while none is being chosen
let tell = () => {};
let settling = 0;

// `changed` is told the part that was chosen; undefined when it is the whole picture again.
export function beginCrop(changed) {
  tell = changed;
  for (const handle of HANDLES) box.append(button(handle));
  area.append(box);
  picture.parentElement.append(area);
  toggle.addEventListener("click", () => (crop ? leaveCrop() : enter(FIRST)));
  picture.addEventListener("load", place);
  addEventListener("resize", place);
}

// The part as the query has it, or none.
export function showCrop(of) {
  clearTimeout(settling);
  crop = of ? [...of] : null;
  draw();
}

export const isCropping = () => crop !== null;

// The whole picture again.
export function leaveCrop() {
  showCrop(null);
  toggle.focus({ preventScroll: true });
  tell(undefined);
}

function enter(first) {
  crop = [...first];
  draw();
  box.firstElementChild.focus({ preventScroll: true });
  tell([...crop]);
}

function button({ name, sides, label }) {
  const made = element("button", `crop-handle ${name}`, [unseen(label)], { type: "button", dataset: { testid: `crop-${name}` } });
  made.addEventListener("keydown", (event) => {
    const across = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key] ?? 0;
    const down = { ArrowUp: -STEP, ArrowDown: STEP }[event.key] ?? 0;
    if (!across && !down) return;
    event.preventDefault();
    move(sides, across, down, crop);
    clearTimeout(settling);
    settling = setTimeout(() => crop && tell([...crop]), SETTLE_MS);
  });
  made.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    made.focus({ preventScroll: true });
    made.setPointerCapture(event.pointerId);
    const [x, y, before] = [event.clientX, event.clientY, [...crop]];
    const { width, height } = area.getBoundingClientRect();
    const drag = (at) => crop && move(sides, (at.clientX - x) / width, (at.clientY - y) / height, before);
    const drop = () => {
      made.removeEventListener("pointermove", drag);
      for (const end of ["pointerup", "pointercancel"]) made.removeEventListener(end, drop);
      if (crop && crop.some((one, side) => one !== before[side])) tell([...crop]);
    };
    made.addEventListener("pointermove", drag);
    for (const end of ["pointerup", "pointercancel"]) made.addEventListener(end, drop);
  });
  return made;
}

// Move these sides from where they were before; none leaves the picture, and none comes too near to its opposite.
function move(sides, across, down, before) {
  const by = [across, down, across, down];
  if (sides.length === 4) {
    for (const [low, high] of [[0, 2], [1, 3]]) {
      const step = Math.min(1 - before[high], Math.max(-before[low], by[low]));
      [crop[low], crop[high]] = [before[low] + step, before[high] + step];
    }
  } else {
    for (const side of sides) {
      const opposite = before[(side + 2) % 4];
      const wanted = Math.min(1, Math.max(0, before[side] + by[side]));
      crop[side] = side < 2 ? Math.min(wanted, opposite - SMALLEST) : Math.max(wanted, opposite + SMALLEST);
    }
  }
  crop = crop.map((one) => Math.min(1, Math.max(0, Number(one.toFixed(4)))));
  draw();
}

function draw() {
  area.hidden = !crop;
  toggle.setAttribute("aria-pressed", String(Boolean(crop)));
  toggle.textContent = crop ? "The whole picture" : "A part of it";
  const [left, top, right, bottom] = crop ?? WHOLE;
  const share = (value) => `${(value * 100).toFixed(2)}%`;
  Object.assign(box.style, { left: share(left), top: share(top), width: share(right - left), height: share(bottom - top) });
  place();
}

// Over the picture alone, which seldom fills its frame.
function place() {
  if (area.hidden || !picture.naturalWidth) return;
  const { clientWidth: width, clientHeight: height } = picture.parentElement;
  const scale = Math.min(width / picture.naturalWidth, height / picture.naturalHeight);
  const [across, down] = [picture.naturalWidth * scale, picture.naturalHeight * scale];
  const pixels = (value) => `${value.toFixed(1)}px`;
  Object.assign(area.style, {
    left: pixels((width - across) / 2), top: pixels((height - down) / 2), width: pixels(across), height: pixels(down),
  });
}
