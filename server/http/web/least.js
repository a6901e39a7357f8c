// The least similarity, in percent: a number and a slider that show the same.

import { byId } from "./element.js";

const SETTLE_MS = 250; // how long the control rests before the search runs again
const number = byId("min-number");
const range = byId("min-range");
let settling = 0;

export function least() {
  const value = Number(number.value);
  return Number.isFinite(value) ? Math.min(100, Math.max(0, value)) : 0;
}

export function showLeast(value) {
  number.value = range.value = value;
}

// No change that is not settled yet counts any more.
export const settle = () => clearTimeout(settling);

export function beginLeast(changed) {
  const later = (delay) => {
    settle();
    settling = setTimeout(changed, delay);
  };
  range.addEventListener("input", () => {
    number.value = range.value;
    later(SETTLE_MS);
  });
  number.addEventListener("input", () => {
    range.value = least();
    later(SETTLE_MS * 2);
  });
  number.addEventListener("change", () => (number.value = least()));
  range.value = least();
}
