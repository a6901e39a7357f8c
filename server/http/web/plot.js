// A plot of what was seen since the page was opened: lines in SVG, and the same figures as a table.

import { NONE, duration, timeOfDay } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_POINTS = 720; // an hour of looks
const MOST_ROWS = 60;
const HEIGHT = 132;
const [LEFT, RIGHT, TOP, BOTTOM] = [2, 2, 18, 20];

export class Plot {
  #points = []; // {at, values}, the newest last
  #lines;
  #write;
  #parts;

  // `figure`: the element to fill; `title`: what is plotted; `lines`: their names, of which CSS knows three by number;
  // `write`: a value as text.
  constructor(figure, title, lines, write) {
    this.#lines = lines;
    this.#write = write;
    const drawing = make("svg", { role: "img", height: HEIGHT });
    const caption = document.createElement("figcaption");
    const now = document.createElement("p");
    const more = document.createElement("details");
    const summary = document.createElement("summary");
    const wide = document.createElement("div");
    const table = document.createElement("table");
    caption.append(title);
    now.className = "now";
    summary.append("As a table");
    Object.assign(wide, { className: "wide", tabIndex: 0, role: "group", ariaLabel: `${title}, as a table` });
    wide.append(table);
    more.append(summary, wide);
    figure.replaceChildren(caption, now, drawing, more);
    this.#parts = { title, drawing, now, more, table };
    new ResizeObserver(() => this.#draw()).observe(figure);
    more.addEventListener("toggle", () => this.#list());
  }

  // `at`: milliseconds since 1970; `values`: one for each line, null where there is none.
  add(at, values) {
    this.#points.push({ at, values });
    if (this.#points.length > MOST_POINTS) this.#points.shift();
    const { now } = this.#parts;
    now.replaceChildren(...this.#lines.map((name, line) => term(line, name, this.#write(values[line]))));
    this.#draw();
    this.#list();
  }

  clear() {
    this.#points = [];
    this.#parts.now.replaceChildren();
    this.#draw();
    this.#list();
  }

  #draw() {
    const { drawing, title } = this.#parts;
    const width = drawing.clientWidth || drawing.parentElement.clientWidth;
    if (!width) return;
    const [first, last] = [this.#points[0]?.at ?? 0, this.#points.at(-1)?.at ?? 0];
    const top = roundedUp(Math.max(0, ...this.#points.flatMap(({ values }) => values.filter(Number.isFinite))));
    const x = (at) => LEFT + ((width - LEFT - RIGHT) * (last > first ? (at - first) / (last - first) : 1));
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / top;
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    drawing.setAttribute("aria-label", this.#said(title));
    drawing.replaceChildren(
      ...[0, top / 2, top].map((value) => make("path", { class: "rule", d: `M0 ${y(value)}H${width}` })),
      label(0, TOP - 5, this.#write(top)),
      label(0, HEIGHT - 5, last > first ? `${duration((last - first) / 1000)} ago` : ""),
      label(width, HEIGHT - 5, "now", "end"),
      ...this.#lines.flatMap((_, line) => this.#line(line, x, y)),
    );
  }

  // A line ends where a value is missing, and begins anew behind it.
  #line(line, x, y) {
    let [path, alone] = ["", true];
    let down = false;
    for (const { at, values } of this.#points) {
      if (!Number.isFinite(values[line])) down = false;
      else {
        path += `${down ? "L" : "M"}${x(at).toFixed(1)} ${y(values[line]).toFixed(1)}`;
        if (down) alone = false;
        down = true;
      }
    }
    const newest = this.#points.at(-1);
    const drawn = path ? [make("path", { class: `line line-${line}`, d: path })] : [];
    if (path && newest && Number.isFinite(newest.values[line])) {
      drawn.push(make("circle", { class: `dot line-${line}`, cx: x(newest.at), cy: y(newest.values[line]), r: alone ? 3 : 2.5 }));
    }
    return drawn;
  }

  // What a person is told who does not see the lines.
  #said(title) {
    if (!this.#points.length) return `${title}: nothing was seen yet.`;
    const parts = this.#lines.map((name, line) => {
      const seen = this.#points.map(({ values }) => values[line]).filter(Number.isFinite);
      const [low, high] = [Math.min(...seen), Math.max(...seen)];
      const now = this.#points.at(-1).values[line];
      return `${name}: ${seen.length ? `${this.#write(now)} now, ${this.#write(low)} to ${this.#write(high)}` : "nothing"}`;
    });
    const [first, last] = [this.#points[0].at, this.#points.at(-1).at];
    return `${title} in the last ${duration((last - first) / 1000)}. ${parts.join(". ")}.`;
  }

  #list() {
    const { more, table } = this.#parts;
    if (!more.open) return;
    const step = Math.max(1, Math.ceil(this.#points.length / MOST_ROWS));
    const rows = this.#points.filter((_, number) => (this.#points.length - 1 - number) % step === 0).reverse();
    table.replaceChildren(
      row("thead", [["Time", ...this.#lines]], "th"),
      row("tbody", rows.map(({ at, values }) => [timeOfDay(at), ...values.map((one) => this.#write(one))]), "td"),
    );
  }
}

// 1, 2 or 5 times a power of ten, so that the scale does not follow every step.
function roundedUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= value * 0.9999);
}

function term(line, name, value) {
  const made = document.createElement("span");
  const key = make("svg", { class: "key", width: 14, height: 8, "aria-hidden": "true" });
  key.append(make("path", { class: `line line-${line}`, d: "M0 4H14" }));
  const figure = document.createElement("b");
  figure.textContent = value ?? NONE;
  made.append(key, `${name} `, figure);
  return made;
}

function label(x, y, text, anchor = "start") {
  const made = make("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

function row(part, rows, cell) {
  const made = document.createElement(part);
  for (const texts of rows) {
    const line = made.appendChild(document.createElement("tr"));
    for (const text of texts) {
      const one = line.appendChild(document.createElement(cell));
      one.textContent = text;
      if (cell === "th") one.scope = "col";
    }
  }
  return made;
}

function make(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [one, value] of Object.entries(attributes)) made.setAttribute(one, value);
  return made;
}
