// What /v1/operator tells of the catalogue: its clients, its embedding spaces with a re-embedding, its indexes.

import * as figures from "./figures.js";
import { Table } from "./table.js";

const FEW = 10;
const STATES = { live: "good", ready: "good", filling: "busy", building: "busy", retired: "quiet", incomplete: "bad" };
const $ = (id) => document.getElementById(id);

export class Catalogue {
  #clients = new Table($("clients"), $("clients-none"));
  #spaces = new Table($("spaces"), $("spaces-none"));
  #indexes = new Table($("indexes"), $("indexes-none"));
  #more = $("clients-more");
  #all = false;
  #found = null;
  #embedded = new Map(); // by space: when and how many, the first and the newest time that it was counted

  constructor() {
    this.#more.addEventListener("click", () => {
      this.#all = !this.#all;
      this.#showClients();
    });
  }

  show(overview) {
    this.#found = overview;
    this.#note(overview);
    this.#showClients();
    this.#spaces.fill(overview.spaces.map(spaceRow), "The database has no embedding space.");
    $("progress").replaceChildren(...overview.spaces.flatMap((space) => this.#progress(space)));
    const { total, largest } = overview.indexes;
    const left = total - largest.length;
    $("indexes-about").textContent = left ? `The largest ${figures.count(largest.length)} of ${figures.count(total)}.` : "";
    this.#indexes.fill(largest.map(indexRow), "No client is so large that it needs an index: searches look at every picture.");
  }

  clear() {
    this.#found = null;
    this.#embedded.clear();
    for (const table of [this.#clients, this.#spaces, this.#indexes]) table.fill([]);
    for (const id of ["clients-about", "indexes-about", "progress"]) $(id).replaceChildren();
    this.#more.hidden = true;
  }

  #showClients() {
    const clients = this.#found?.clients;
    const rows = clients?.largest ?? [];
    const most = Math.max(1, ...rows.map((one) => one.media));
    this.#more.hidden = rows.length <= FEW;
    this.#more.textContent = this.#all ? `Show ${FEW}` : `Show ${figures.count(rows.length)}`;
    this.#more.setAttribute("aria-expanded", this.#all);
    $("clients-about").textContent = clients ? clientsSaid(clients) : "";
    this.#clients.fill(
      rows.slice(0, this.#all ? rows.length : FEW).map((one) => [
        one.id,
        { text: figures.count(one.media), share: one.media / most },
        figures.count(one.products),
        figures.count(one.activeProducts),
      ]),
      clients ? "No client has a product yet." : "The clients are counted once a minute, and were not yet.",
    );
  }

  // Counts are made once a minute or less often, and are looked at more often.
  #note({ clients, spaces }) {
    if (!clients) return;
    const at = Date.parse(clients.countedAt) / 1000;
    for (const { id, progress } of spaces) {
      const before = this.#embedded.get(id);
      const running = progress?.running && before?.running;
      if (before && before.now.at === at) continue;
      const now = { at, embedded: progress?.embedded ?? 0 };
      this.#embedded.set(id, { first: running ? before.first : now, now, running: Boolean(progress?.running) });
    }
  }

  #progress({ id, model, state, progress }) {
    const left = progress ? progress.untried : 0;
    if (!progress || (state !== "filling" && !progress.running && !left)) return [];
    const done = progress.embedded + progress.failed;
    const whole = done + left;
    const [made, name, bar, line] = ["div", "p", "progress", "p"].map((tag) => document.createElement(tag));
    made.className = "embedding";
    name.textContent = `${model}, ${id.slice(0, 8)}`;
    [bar.max, bar.value] = [Math.max(1, whole), whole ? done : 1];
    bar.setAttribute("aria-label", `Pictures embedded in the space ${id.slice(0, 8)}`);
    const failed = progress.failed ? `, ${figures.count(progress.failed)} could not be` : "";
    line.textContent =
      `${figures.count(progress.embedded)} of ${figures.counted(whole, "picture")} embedded ` +
      `(${figures.percent(whole ? done / whole : 1)})${failed}. ${this.#pace(id, state, progress)}`;
    made.append(name, bar, line);
    return [made];
  }

  #pace(id, state, { running, untried }) {
    if (state === "live") return "This server embeds what is missing by itself, a few pictures at a time.";
    if (!running) return untried ? "Nobody re-embeds at this moment: `python -m server reembed` goes on." : "It waits for the switch.";
    const { first, now } = this.#embedded.get(id) ?? {};
    const rate = now && now.at > first.at ? (now.embedded - first.embedded) / (now.at - first.at) : 0;
    if (!(rate > 0)) return "A re-embedding runs; its pace is known after two counts.";
    return `A re-embedding runs at ${figures.perSecond(rate)}, about ${figures.duration(untried / rate)} to go.`;
  }
}

function clientsSaid({ total, largest, countedAt }) {
  const which = total > largest.length ? `, of which these are the ${figures.count(largest.length)} largest` : "";
  return `${figures.counted(total, "client")}${which}. Counted at ${figures.timeOfDay(new Date(countedAt))}.`;
}

const state = (text) => ({ text, mark: STATES[text] ?? "quiet" });

function spaceRow(one) {
  const missing = one.progress ? one.progress.untried : null;
  return [
    one.id.slice(0, 8),
    state(one.state),
    one.served ? `${one.model} (this server)` : one.model,
    figures.count(one.dimensions),
    figures.count(one.vectors),
    figures.count(missing),
    figures.date(one.retiredAt ?? one.createdAt),
  ];
}

function indexRow(one) {
  return [
    one.clientId ?? figures.NONE,
    state(one.state),
    figures.count(one.vectors),
    figures.count(one.efSearch),
    figures.percent(one.recall),
    one.compared ? `${figures.percent(one.comparedRecall)} of ${figures.count(one.compared)}` : figures.NONE,
    one.measuredAt ? figures.date(one.measuredAt) : figures.NONE,
  ];
}
