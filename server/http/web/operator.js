// The operator's page: looks at /metrics and /v1/operator again and again, and shows what it has seen. It changes nothing.

import { Catalogue } from "./catalogue.js";
import * as figures from "./figures.js";
import { askForKey, begin as beginWithKey, hasKey, isLocked, keyHeaders } from "./key.js";
import { Samples } from "./samples.js";
import { Traffic } from "./traffic.js";

const METRICS = "metrics";
const OVERVIEW = "v1/operator";
const REPORT = "operator/report";
const EACH_MS = 5000;
const LONGEST_MS = 10_000; // an answer that has not come by then comes too late for this look
const CHECKS = {
  model: "The model does not answer as it should.",
  database: "The database does not answer.",
  store: "The store of pictures is not there.",
  disk: "A disk of this server is full.",
};

const $ = (id) => document.getElementById(id);
const traffic = new Traffic();
const catalogue = new Catalogue();
let timer = 0;
let looks = 0; // what belongs to an earlier one is no longer wanted
let seen = null; // when the metrics were last there
let known = null; // the overview that was last there: {at, overview}
const starts = []; // when the servers that answer were started, in the order in which they were met
let mixed = false;

// An answer, or why there is none: {status, body} or {status, sentence}; status 0 where the server was not reached.
async function ask(address, read) {
  let answer;
  try {
    answer = await fetch(address, { headers: keyHeaders(), cache: "no-store", signal: AbortSignal.timeout(LONGEST_MS) });
    if (answer.ok) return { status: answer.status, body: await answer[read]() };
  } catch {
    return { status: 0, sentence: "The server does not answer." };
  }
  const problem = await answer.json().catch(() => null);
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  return { status: answer.status, code: problem?.code, wait, sentence: problem?.error ?? `The server answered ${answer.status} without saying why.` };
}

async function look() {
  clearTimeout(timer);
  if (isLocked() || document.hidden) return;
  const mine = (looks += 1);
  const [metrics, overview] = await Promise.all([ask(METRICS, "text"), ask(OVERVIEW, "json")]);
  if (mine !== looks) return;
  const refused = [metrics, overview].find(({ status }) => status === 401 || status === 403);
  if (refused) {
    forget();
    return askForKey(refused.status === 401 && !hasKey() ? "" : keySentence(refused));
  }
  if (metrics.body !== undefined) {
    seen = new Date();
    const samples = new Samples(metrics.body);
    traffic.show(samples, performance.now() / 1000);
    showBuild(samples);
    metrics.failed = samples.of("twinlens_check_failed").filter(({ value }) => value > 0).map(({ labels }) => labels.check);
  }
  if (overview.body !== undefined) {
    known = { at: new Date(), overview: overview.body };
    catalogue.show(overview.body);
    showServer(overview.body.server);
  }
  showState(metrics, overview);
  timer = setTimeout(look, Math.max(EACH_MS, 1000 * Math.max(metrics.wait ?? 0, overview.status === 429 ? overview.wait : 0)));
}

const keySentence = ({ status, sentence }) =>
  status === 403 ? `${sentence} This page needs a key of the scope admin; keys of shops search and read, and open no figures.` : sentence;

// --- what is wrong ---------------------------------------------------------------------------------------------------

function showState(metrics, overview) {
  const troubles = [];
  if (metrics.status === 0) troubles.push("The server does not answer.");
  else if (metrics.body === undefined) troubles.push(`The metrics: ${metrics.sentence}`);
  const checks = overview.body?.checks ?? {};
  const failed = new Set([...(metrics.failed ?? []), ...Object.keys(checks).filter((name) => !checks[name].ok)]);
  if (overview.body === undefined && overview.status && overview.sentence !== metrics.sentence) {
    troubles.push(overview.sentence);
    if (overview.code?.startsWith("database")) failed.delete("database"); // said already
  }
  for (const name of failed) troubles.push(checks[name]?.error ?? CHECKS[name] ?? `The check ${name} fails.`);
  if (mixed) troubles.push("Several servers answer at this address in turn, so that these figures are now of one, now of another.");
  const old = [];
  if (metrics.body === undefined && seen) old.push(`Rates, times and disks are as they were at ${figures.timeOfDay(seen)}.`);
  if (overview.body === undefined && known) {
    old.push(`Clients, spaces and indexes are as they were at ${figures.timeOfDay(known.at)}.`);
  }
  const lines = troubles.length ? [...new Set(troubles), ...old] : ["Everything that this server needs is as it should be."];
  const state = $("state");
  state.dataset.state = troubles.length ? "bad" : "good";
  if (state.textContent !== lines.join("")) {
    state.replaceChildren(...lines.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  }
  if (seen) $("looked").textContent = `Last look ${figures.timeOfDay(seen)}`;
  document.body.dataset.seen = seen ? "yes" : "no";
  document.title = `${troubles.length ? "(!) " : ""}Operator – Twinlens`;
}

// --- what runs -------------------------------------------------------------------------------------------------------

function showBuild(samples) {
  const builds = samples.of("twinlens_build_info").map(({ labels }) => labels);
  $("build").textContent = builds.map((one) => `Twinlens ${one.version}, ${one.model} (${one.precision}) on ${one.device}`).join("; ");
}

function showServer({ startedAt, uptimeSeconds, workers, report }) {
  if (starts.at(-1) !== startedAt) {
    mixed ||= starts.includes(startedAt);
    starts.push(startedAt);
  }
  $("uptime").textContent = `Up for ${figures.duration(uptimeSeconds)}, ${figures.counted(workers, "worker")}`;
  $("report").hidden = !report;
}

// The report is no page that a key could go to, so with a key it is fetched, and opened from here.
$("report").addEventListener("click", async (event) => {
  if (!hasKey() || event.currentTarget.protocol === "blob:") return;
  event.preventDefault();
  const link = event.currentTarget;
  const { body, sentence } = await ask(REPORT, "blob");
  if (!body) return void ($("report-said").textContent = sentence);
  link.href = URL.createObjectURL(body);
  // A browser that lets no page open another lets the person do it.
  $("report-said").textContent = window.open(link.href) ? "" : "The browser has kept the report from opening: choose the link again.";
});

// --- the beginning ---------------------------------------------------------------------------------------------------

function forget() {
  looks += 1;
  [seen, known, mixed] = [null, null, false];
  starts.length = 0;
  traffic.clear();
  catalogue.clear();
  for (const id of ["state", "build", "uptime", "looked", "report-said"]) $(id).replaceChildren();
  delete $("state").dataset.state;
  $("report").hidden = true;
  $("report").href = REPORT;
  document.body.dataset.seen = "no";
}

beginWithKey(
  OVERVIEW,
  () => {
    if (isLocked()) forget();
    else look();
  },
  // A key is good that may ask, also where the answer is that the database is away.
  { method: "GET", good: ({ ok, status }, problem) => ok || (status === 503 && problem?.code !== "keys_unknown") },
);
document.addEventListener("visibilitychange", look);
look();
