// What /metrics says, read from Prometheus' text format: samples by name, each with its labels and its value.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };
const NUMBERS = { "+Inf": Infinity, "-Inf": -Infinity };

export class Samples {
  #byName = new Map();

  constructor(text) {
    for (const line of text.split("\n")) {
      const found = line.startsWith("#") ? null : LINE.exec(line);
      if (!found) continue;
      const [, name, inside = "", value] = found;
      if (!this.#byName.has(name)) this.#byName.set(name, []);
      this.#byName.get(name).push({ labels: labelsOf(inside), value: NUMBERS[value] ?? Number(value) });
    }
  }

  // Those of a name that have these labels; `wanted` gives for a label its value, or those that it may have.
  of(name, wanted = {}) {
    const all = this.#byName.get(name) ?? [];
    const asked = Object.entries(wanted);
    return asked.length ? all.filter(({ labels }) => asked.every(([label, may]) => [may].flat().includes(labels[label]))) : all;
  }

  // Their sum; null where there is none, since nothing is another figure than 0.
  sum(name, wanted) {
    const found = this.of(name, wanted);
    return found.length ? found.reduce((sum, { value }) => sum + value, 0) : null;
  }

  // The largest of them; null where there is none.
  largest(name, wanted) {
    const found = this.of(name, wanted);
    return found.length ? Math.max(...found.map(({ value }) => value)) : null;
  }
}

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) {
    labels[name] = value.replace(/\\[n"\\]/g, (pair) => ESCAPED[pair]);
  }
  return labels;
}
