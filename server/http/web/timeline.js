// What was seen of the metrics since the page was opened: how fast counters rise, and percentiles of histograms, both
// over the last minute. Counters rise, and begin again at 0 with the server.

const WINDOW_SECONDS = 60;

export class Timeline {
  #seen = []; // the newest last: {at, risen}; `risen`: by series, how much it has risen since the page was opened
  #last = null; // by series, what its counter said the last time

  // `at`: seconds, rising; `names`: of the counters, and of the parts of histograms, that are asked for later.
  add(at, samples, names) {
    const before = this.#seen.at(-1)?.risen;
    const last = new Map();
    const risen = new Map();
    for (const name of names) {
      for (const { labels, value } of samples.of(name)) {
        const key = keyOf(name, labels);
        // What is new was 0 the last time; at the first time, nobody knows when it rose.
        const was = this.#last ? (this.#last.get(key)?.value ?? 0) : value;
        last.set(key, { name, labels, value });
        risen.set(key, { name, labels, value: (before?.get(key)?.value ?? 0) + (value < was ? value : value - was) });
      }
    }
    this.#last = last;
    this.#seen.push({ at, risen });
    while (this.#seen.length > 2 && this.#seen[1].at <= at - WINDOW_SECONDS) this.#seen.shift();
  }

  // Over how many seconds figures are: 0 until there are two looks.
  get seconds() {
    return this.#seen.length > 1 ? this.#seen.at(-1).at - this.#seen[0].at : 0;
  }

  // How much the series with these labels have risen within the window, in all; null until that is known.
  rise(name, wanted = {}) {
    return this.seconds ? this.#rises(name, wanted).reduce((sum, { rise }) => sum + rise, 0) : null;
  }

  // The same a second.
  rate(name, wanted) {
    const rise = this.rise(name, wanted);
    return rise === null ? null : rise / this.seconds;
  }

  // How much they have risen by each value of a label, as a Map.
  riseBy(label, name, wanted = {}) {
    const by = new Map();
    for (const { labels, rise } of this.#rises(name, wanted)) by.set(labels[label], (by.get(labels[label]) ?? 0) + rise);
    return by;
  }

  // The quantile of a histogram, as Prometheus' histogram_quantile has it: within a bucket, values count as evenly
  // spread, and above the last bound as that bound. Null where nothing was observed within the window.
  quantile(share, name, wanted) {
    const buckets = [...this.riseBy("le", `${name}_bucket`, wanted)]
      .map(([bound, count]) => ({ bound: bound === "+Inf" ? Infinity : Number(bound), count }))
      .sort((one, other) => one.bound - other.bound);
    const all = buckets.at(-1)?.count ?? 0;
    if (!all) return null;
    const rank = share * all;
    const at = buckets.findIndex(({ count }) => count >= rank);
    const { bound, count } = buckets[at];
    if (bound === Infinity) return buckets.at(-2)?.bound ?? null;
    const { bound: from, count: below } = at ? buckets[at - 1] : { bound: 0, count: 0 };
    return count === below ? bound : from + ((bound - from) * (rank - below)) / (count - below);
  }

  // The mean of what a histogram has observed within the window; null where that is nothing.
  mean(name, wanted) {
    const count = this.rise(`${name}_count`, wanted);
    return count ? this.rise(`${name}_sum`, wanted) / count : null;
  }

  #rises(name, wanted) {
    if (!this.seconds) return [];
    const first = this.#seen[0].risen;
    const asked = Object.entries(wanted);
    return [...this.#seen.at(-1).risen]
      .filter(([, one]) => one.name === name && asked.every(([label, may]) => [may].flat().includes(one.labels[label])))
      .map(([key, { labels, value }]) => ({ labels, rise: value - (first.get(key)?.value ?? 0) }));
  }
}

const keyOf = (name, labels) => JSON.stringify([name, ...Object.entries(labels).flat()]);
