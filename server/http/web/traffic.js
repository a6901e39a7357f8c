// What the metrics show: how much is asked and how quickly it is answered, what is refused, what waits, what is held.

import * as figures from "./figures.js";
import { Plot } from "./plot.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";

const SEARCHES = { route: ["/v1/search", "/api/search/by-image"] };
const ANSWERED = { ...SEARCHES, status_class: "2xx" };
const STAGES = [
  ["Fetch by URL", { stage: "fetch" }],
  ["Decode", { stage: "decode" }],
  ["Resize", { stage: "resize" }],
  ["Read words", { stage: "tokenize" }],
  ["Wait for the model", { stage: "queue" }],
  ["Run the model", { stage: "encode" }],
  ["Search the database", { stage: "search" }],
];
// Whoever watches the server asks for these all the time, this page among them.
const WATCHING = new Set(["/health/live", "/health/ready", "/metrics", "/v1/operator", "/operator", "/operator/report", "/web/{name}"]);
const COUNTERS = [
  "twinlens_requests_total",
  "twinlens_request_seconds_bucket",
  "twinlens_stage_seconds_bucket",
  "twinlens_stage_seconds_count",
  "twinlens_batch_size_sum",
  "twinlens_batch_size_count",
  "twinlens_cache_total",
];
const MOST_CODES = 20;

const $ = (id) => document.getElementById(id);
const share = (part, whole) => (whole ? part / whole : null);

export class Traffic {
  #timeline = new Timeline();
  #plots = {
    searches: new Plot($("plot-searches"), "Searches a second", ["answered"], figures.perSecond),
    times: new Plot($("plot-times"), "Time of a search", ["p50", "p95", "p99"], figures.seconds),
    refusals: new Plot($("plot-refusals"), "Requests that were refused, and that failed, a second", ["refused (4xx)", "failed (5xx)"], figures.perSecond),
    queue: new Plot($("plot-queue"), "Waiting before a stage", ["interactive", "bulk"], figures.count),
  };
  #codes = new Table($("codes"), $("codes-none"));
  #stages = new Table($("stages"), $("stages-none"));
  #disks = new Table($("disks"), $("disks-none"));
  #pools = new Table($("pools"), $("pools-none"));
  #events = new Table($("events"), $("events-none"));

  // `at`: seconds of a clock that is never put back.
  show(samples, at) {
    const seen = this.#timeline;
    seen.add(at, samples, COUNTERS);
    const now = Date.now();
    this.#plots.searches.add(now, [this.#requests(SEARCHES, "2")]);
    this.#plots.times.add(now, [0.5, 0.95, 0.99].map((one) => seen.quantile(one, "twinlens_request_seconds", ANSWERED)));
    this.#plots.refusals.add(now, [this.#requests({}, "4"), this.#requests({}, "5")]);
    this.#plots.queue.add(now, ["interactive", "bulk"].map((lane) => samples.sum("twinlens_queue_depth", { lane })));
    this.#facts(samples);
    this.#showCodes(samples);
    this.#stages.fill(this.#stageRows(), "Nothing went through a stage within the last minute.");
    this.#disks.fill(diskRows(samples), "The server names no disk.");
    this.#pools.fill(poolRows(samples), "The server names no connections.");
    this.#events.fill(eventRows(samples), "Nothing went wrong since the server started.");
  }

  clear() {
    this.#timeline = new Timeline();
    for (const plot of Object.values(this.#plots)) plot.clear();
    for (const table of [this.#codes, this.#stages, this.#disks, this.#pools, this.#events]) table.fill([]);
    $("facts").replaceChildren();
  }

  // How many requests a second were answered with a status that begins so, but for those of whoever watches.
  #requests(wanted, digit) {
    if (!this.#timeline.seconds) return null;
    const routes = this.#timeline.riseBy("route", "twinlens_requests_total", wanted);
    const statuses = [...this.#timeline.riseBy("status", "twinlens_requests_total", wanted).keys()];
    const chosen = statuses.filter((status) => status.startsWith(digit));
    const asked = [...routes.keys()].filter((route) => !WATCHING.has(route));
    return this.#timeline.rate("twinlens_requests_total", { ...wanted, status: chosen, route: asked });
  }

  #facts(samples) {
    const found = this.#timeline.riseBy("found", "twinlens_cache_total");
    const all = [...found.values()].reduce((sum, one) => sum + one, 0);
    const recall = share(samples.sum("twinlens_recall_sum"), samples.sum("twinlens_recall_count"));
    const without = samples.sum("twinlens_media_without_vector");
    const sizes = (what) => samples.largest("twinlens_catalogue_size", { what });
    const facts = [
      ["Pictures", figures.count(sizes("media")), `of ${figures.count(sizes("products"))} products`],
      ["Without a vector", figures.count(without), "no search finds these pictures"],
      ["Wait for a worker", figures.count(sizes("pending_media")), "pictures that another system has written"],
      ["In work now", figures.count(plus(samples.sum("twinlens_pictures_inside"), samples.sum("twinlens_texts_inside"))), "pictures and words"],
      ["Longest wait", figures.seconds(samples.largest("twinlens_queue_age_seconds"))],
      ["In a batch", figures.number(this.#timeline.mean("twinlens_batch_size")), "on average, last minute"],
      ["Known vectors", figures.percent(share((found.get("kept") ?? 0) + (found.get("joined") ?? 0), all)), "of what was asked for, last minute"],
      ["Live recall", figures.percent(recall), "of searches drawn at random, since the start"],
    ];
    $("facts").replaceChildren(...facts.map(([name, value, about]) => fact(name, value, about)));
  }

  #showCodes(samples) {
    const recent = new Map();
    const totals = new Map();
    for (const { labels, value } of samples.of("twinlens_requests_total")) {
      if (!labels.code) continue;
      const key = `${labels.code} ${labels.status}`;
      totals.set(key, (totals.get(key) ?? 0) + value);
      const { code, status } = labels;
      recent.set(key, this.#timeline.rise("twinlens_requests_total", { code, status }));
    }
    const rows = [...totals]
      .sort(([one, many], [other, more]) => recent.get(other) - recent.get(one) || more - many)
      .slice(0, MOST_CODES)
      .map(([key, total]) => [...key.split(" "), figures.count(recent.get(key)), figures.count(total)]);
    this.#codes.fill(rows, "No request was refused since the server started.");
  }

  #stageRows() {
    return STAGES.map(([name, wanted]) => {
      const quantile = (one) => figures.seconds(this.#timeline.quantile(one, "twinlens_stage_seconds", wanted));
      const passed = this.#timeline.rise("twinlens_stage_seconds_count", wanted);
      return passed ? [name, figures.count(passed), ...[0.5, 0.95, 0.99].map(quantile)] : null;
    }).filter(Boolean);
  }
}

function diskRows(samples) {
  return samples.of("twinlens_disk_size_bytes").filter(({ value }) => value > 0).map(({ labels, value: size }) => {
    const free = samples.sum("twinlens_disk_free_bytes", labels);
    const used = { text: figures.percent((size - free) / size), share: (size - free) / size };
    return [labels.folder, used, figures.bytes(free), figures.bytes(size)];
  });
}

function poolRows(samples) {
  const pools = [...new Set(samples.of("twinlens_pool_connections").map(({ labels }) => labels.pool))];
  return pools.map((pool) => [
    pool,
    figures.count(samples.sum("twinlens_pool_connections", { pool, state: "lent" })),
    figures.count(samples.sum("twinlens_pool_connections", { pool, state: "resting" })),
    figures.count(samples.sum("twinlens_pool_waiting", { pool })),
    figures.count(samples.sum("twinlens_pool_refused_total", { pool })),
  ]);
}

// What was counted since the server started and should stay at 0, where it has not.
function eventRows(samples) {
  return [
    ["A worker died and was started again", samples.sum("twinlens_restarts_total", { child: "worker" })],
    ["The embedded PostgreSQL died and was started again", samples.sum("twinlens_restarts_total", { child: "postgres" })],
    ["The store could not be read", samples.sum("twinlens_store_failures_total", { kind: "read" })],
    ["The store could not be written", samples.sum("twinlens_store_failures_total", { kind: "write" })],
    ["The store could not delete", samples.sum("twinlens_store_failures_total", { kind: "delete" })],
    ["A picture was missing in the store", samples.sum("twinlens_store_failures_total", { kind: "missing" })],
    ["A picture could not be decoded", samples.sum("twinlens_decode_failures_total")],
  ].filter(([, value]) => value > 0).map(([name, value]) => [name, figures.count(value)]);
}

const plus = (one, other) => (one === null && other === null ? null : (one ?? 0) + (other ?? 0));

function fact(name, value, about = "") {
  const made = document.createElement("div");
  const [term, figure, note] = ["dt", "dd", "dd"].map((tag) => document.createElement(tag));
  [term.textContent, figure.textContent, note.textContent] = [name, value, about];
  note.className = "about";
  made.append(term, figure, ...(about ? [note] : []));
  return made;
}
