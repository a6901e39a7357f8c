// The page of Twinlens: one picture, or a few words, in; the matches out. The address may name the client (?clientId=)
// and what to start from: a picture of the catalogue (?mediaId=) or words (?text=). A query is one of {file},
// {mediaId} and {text}.

import { askForKey, begin as beginWithKey, hasKey, isLocked, keyHeaders } from "./key.js";

const LIMIT = 24;
const LARGE_UPLOAD = 32 * 1024 * 1024; // the server's default limit; used only to explain a broken connection
const SETTLE_MS = 250; // how long the similarity control rests before the search runs again
const PATIENCE_MS = 400; // an answer slower than this gets an empty grid instead of the last matches

const address = new URLSearchParams(location.search);
const clientId = address.get("clientId");
const $ = (id) => document.getElementById(id);
const results = $("results");
const picture = $("query-picture");
const words = $("text");
const readsWords = document.body.dataset.words === "on"; // the server says so: not every model does
const number = $("min-number");
const range = $("min-range");

// ---- addresses: all are relative, since the page may be shown below any path

function withClient(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  if (clientId) query.set("clientId", clientId);
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

const thumbnailOf = (mediaId) => withClient(`v1/media/${encodeURIComponent(mediaId)}/thumbnail`);
// An address of a picture as the server gives it: it does not always know below which path this page is.
const below = (given) => given.slice(given.lastIndexOf("/v1/media/") + 1);
const inAddress = ({ mediaId, text }) => (mediaId ? { mediaId } : text ? { text } : {});
const pageOf = (query) => withClient("./", query ? inAddress(query) : {});

// ---- words

const percent = (similarity) => `${similarity.toFixed(1)} %`;
const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
const part = (ms) => (ms < 1000 ? `${ms.toFixed(1)} ms` : duration(ms));
const GRADES = { identical: "same picture", "near-duplicate": "nearly the same", similar: "similar", weak: "weak" };
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

function fileSize(bytes) {
  if (bytes < 1024) return plural(bytes, "byte", "bytes");
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

function wait(seconds) {
  return seconds < 90 ? plural(seconds, "second", "seconds") : plural(Math.ceil(seconds / 60), "minute", "minutes");
}

// ---- asking the server

// What went wrong, as a sentence for the person at the page.
class SearchFailed extends Error {
  constructor(sentence, { requestId = "", retryAfter = 0, keyWanted = false } = {}) {
    super(sentence);
    this.keyWanted = keyWanted; // the server takes no request without a key, or without another one
    this.requestId = requestId;
    this.retryAfter = retryAfter; // seconds; 0 when the server named no time
  }
}

function retryAfterSeconds(header) {
  if (!header) return 0;
  const seconds = /^\s*\d+\s*$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : 0;
}

function requestFor(query, minSimilarity) {
  if (!query.file) {
    const body = { ...inAddress(query), limit: LIMIT };
    if (minSimilarity > 0) body.minSimilarity = minSimilarity;
    return { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  }
  const form = new FormData();
  form.append("file", query.file, query.file.name); // the bytes as they are: a picture finds itself exactly
  form.append("limit", LIMIT);
  if (minSimilarity > 0) form.append("minSimilarity", minSimilarity);
  return { body: form, headers: {} };
}

function connectionSentence(query) {
  if (query.file?.size > LARGE_UPLOAD) {
    const size = fileSize(query.file.size);
    return `The connection broke while the picture was being sent. It has ${size}, which may be more than the server accepts.`;
  }
  return "The server could not be reached. Check that it is running and that you are connected, then try again.";
}

// The answer of POST /v1/search; throws SearchFailed, or AbortError when a newer search took over.
async function search(query, minSimilarity, signal) {
  const { body, headers } = requestFor(query, minSimilarity);
  let response, text;
  try {
    response = await fetch(withClient("v1/search"), {
      method: "POST", body, headers: { Accept: "application/json", ...headers, ...keyHeaders() }, signal,
    });
    text = await response.text();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new SearchFailed(connectionSentence(query));
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = null; // a gateway's own page, for one
  }
  if (!response.ok) {
    throw new SearchFailed(answer?.error || `The server answered ${response.status} without saying why.`, {
      requestId: answer?.requestId,
      keyWanted: response.status === 401,
      retryAfter: retryAfterSeconds(response.headers.get("Retry-After")),
    });
  }
  if (!Array.isArray(answer?.results)) throw new SearchFailed("The server's answer could not be read as a list of matches.");
  return answer;
}

// ---- showing

function showQuery(query) {
  forgetPicture();
  document.body.dataset.by = query.text ? "words" : "picture";
  words.value = query.text ?? "";
  if (query.text) {
    document.title = `${query.text} – Twinlens`;
    return;
  }
  const name = query.file ? query.file.name || "picture" : query.name || "";
  $("query").hidden = false;
  $("no-preview").hidden = true;
  $("query-origin").textContent = query.file ? fileSize(query.file.size) : "From the catalogue";
  $("no-preview-why").textContent = query.file
    ? "This browser has no preview of it"
    : "No thumbnail";
  picture.hidden = false;
  if (query.file) picture.src = URL.createObjectURL(query.file);
  else showThumbnail(picture, query);
  showQueryName(name);
}

// `thumbnailUrl` is an address that works without a key. Where there is none the picture is fetched with the key, since
// an `img` sends none.
async function showThumbnail(image, { mediaId, thumbnailUrl }) {
  const address = thumbnailUrl ? below(thumbnailUrl) : thumbnailOf(mediaId);
  image.dataset.of = mediaId;
  if (thumbnailUrl || !hasKey()) {
    image.src = address;
    return;
  }
  try {
    const answer = await fetch(address, { headers: keyHeaders() });
    if (!answer.ok) throw new Error(answer.status);
    const blob = await answer.blob();
    if (image.dataset.of !== mediaId) return; // it shows something else by now
    image.src = URL.createObjectURL(blob);
    if (image !== picture) image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    if (image.dataset.of === mediaId) image.dispatchEvent(new Event("error"));
  }
}

function forgetPicture() {
  delete picture.dataset.of;
  if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
  picture.removeAttribute("src");
  $("query").hidden = picture.hidden = true;
}

function showQueryName(name) {
  $("query-name").textContent = $("query-name").title = $("no-preview-name").textContent = name;
  picture.alt = name ? `Searching with: ${name}` : "The picture to search with";
  document.title = name ? `${name} – Twinlens` : "Twinlens";
}

picture.addEventListener("error", () => {
  picture.hidden = true;
  $("no-preview").hidden = false;
});

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function resultItem(match) {
  const exact = match.similarity >= 100 && !current?.text; // words are like a picture, never the same
  const item = element("li", exact ? "result exact" : "result");
  item.dataset.testid = "result";
  item.dataset.mediaId = match.mediaId;
  item.dataset.productId = match.productId;

  const link = element("a", "card");
  link.href = pageOf(match);
  const grade = GRADES[match.grade] ?? ""; // null for words, and where the model has no grades
  link.setAttribute(
    "aria-label",
    `${match.productName}, ${percent(match.similarity)}${grade && `, ${grade}`}${exact ? ", exact match" : ""}. Find pictures like it.`,
  );
  link.addEventListener("click", (event) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // a new tab, as asked
    event.preventDefault();
    begin({ mediaId: match.mediaId, name: match.productName, thumbnailUrl: match.thumbnailUrl });
  });

  const frame = element("span", "frame");
  const image = document.createElement("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = match.productName;
  image.dataset.testid = "result-thumbnail";
  image.addEventListener("error", () => frame.classList.add("missing"));
  showThumbnail(image, match);
  frame.append(image);
  if (exact) frame.append(element("span", "badge", "Exact match"));

  const name = element("span", "result-name", match.productName);
  name.dataset.testid = "result-name";
  name.title = match.productName;
  const similarity = element("span", "result-similarity", percent(match.similarity));
  similarity.dataset.testid = "result-similarity";

  const figures = element("span", "result-figures");
  figures.append(similarity);
  if (grade) {
    const said = element("span", `result-grade ${match.grade}`, grade);
    said.dataset.testid = "result-grade";
    figures.append(said);
  }

  link.append(frame, name, figures);
  item.append(link);
  return item;
}

function placeholders() {
  return Array.from({ length: 8 }, () => {
    const item = element("li", "result waiting");
    item.setAttribute("aria-hidden", "true");
    item.append(element("span", "frame"), element("span", "line"), element("span", "line short"));
    return item;
  });
}

function showPrint(answer, total) {
  const parts = Object.entries(answer.timings ?? {}).filter(([, ms]) => Number.isFinite(ms));
  const space = answer.space ? ` · space ${answer.space.slice(0, 12)}` : "";
  $("print-line").textContent = duration(total) + space;
  $("print-line").title = answer.space ? `Embedding space ${answer.space}` : "";
  const rows = parts.map(([key, ms]) => [key.replace(/([A-Z])/g, " $1").toLowerCase(), part(ms)]);
  rows.push(["in all, seen from this page", part(total)]);
  $("timings").replaceChildren(...rows.flatMap(([key, value]) => [element("dt", "", key), element("dd", "", value)]));
  $("print").hidden = false;
}

function say(text, notice = "") {
  $("status").textContent = text;
  $("notice").textContent = notice;
}

let countdown = 0;

function hideOutcome() {
  clearInterval(countdown);
  for (const id of ["error", "request-id", "retry", "lift", "print"]) $(id).hidden = true;
  $("error-text").textContent = "";
}

function showFailure(failure) {
  const later = failure.retryAfter ? ` Try again in ${wait(failure.retryAfter)}.` : "";
  $("error-text").textContent = failure.message + later;
  $("request-id").textContent = failure.requestId ? `Request ${failure.requestId}` : "";
  $("request-id").hidden = !failure.requestId;
  $("error").hidden = false;

  const retry = $("retry");
  const due = Date.now() + failure.retryAfter * 1000;
  const tick = () => {
    const left = Math.ceil((due - Date.now()) / 1000);
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${wait(left)}` : "Try again";
    if (left <= 0) clearInterval(countdown);
  };
  retry.hidden = false;
  tick();
  if (retry.disabled) countdown = setInterval(tick, 500);
}

function showAnswer(answer, query, minSimilarity, total) {
  const hadFocus = results.contains(document.activeElement);
  results.replaceChildren(...answer.results.map(resultItem));
  if (query.mediaId && !query.name) {
    query.name = answer.results.find((match) => match.mediaId === query.mediaId)?.productName;
    if (query.name) showQueryName(query.name);
  }
  if (answer.results.length) {
    say(plural(answer.results.length, "match", "matches"), query.notice);
  } else if (minSimilarity > 0) {
    const hint = query.text ? "Words seldom come as close to a picture as another picture does." : query.notice;
    say(`Nothing in this catalogue is at least ${minSimilarity} % similar.`, hint);
    $("lift").hidden = false;
  } else {
    say("The catalogue is empty.", query.notice);
  }
  showPrint(answer, total);
  if (hadFocus) $("matches").focus({ preventScroll: true }); // the link that had it is gone
}

// ---- one search at a time

let current = null; // the query on the page
let running = new AbortController(); // its request
let settling = 0; // the timer of a changed similarity

function setState(state) {
  results.dataset.state = state;
  results.setAttribute("aria-busy", String(state === "searching"));
  document.body.dataset.state = state;
}

async function run(query, { fresh = true } = {}) {
  clearTimeout(settling);
  running.abort();
  const own = (running = new AbortController());
  current = query;
  if (isLocked()) return; // it is searched for when there is a key
  document.body.dataset.view = "search";
  if (fresh) {
    showQuery(query);
    scrollTo({ top: 0 });
  }
  hideOutcome();
  say("Searching…", query.notice);
  setState("searching");
  const impatient = setTimeout(() => fresh && results.replaceChildren(...placeholders()), PATIENCE_MS);

  const minSimilarity = leastSimilarity();
  const started = performance.now();
  let state = "done";
  try {
    const answer = await search(query, minSimilarity, own.signal);
    if (own.signal.aborted) return; // answered, but a newer search has the page
    showAnswer(answer, query, minSimilarity, performance.now() - started);
  } catch (error) {
    if (own.signal.aborted) return;
    if (error.keyWanted) {
      state = "idle";
      results.replaceChildren();
      say("");
      askForKey(hasKey() ? error.message : "");
      return;
    }
    state = "failed";
    results.replaceChildren();
    say("", query.notice);
    if (!(error instanceof SearchFailed)) console.error(error);
    showFailure(error instanceof SearchFailed ? error : new SearchFailed("The server's answer could not be shown."));
  } finally {
    clearTimeout(impatient);
    if (!own.signal.aborted) setState(state);
  }
}

function reset() {
  running.abort();
  current = null;
  forgetPicture();
  words.value = "";
  delete document.body.dataset.by;
  document.body.dataset.view = "start";
  document.title = "Twinlens";
  results.replaceChildren();
  hideOutcome();
  say("");
  setState("idle");
}

// ---- going back and forth: each query is an entry of the browser's history

const past = new Map();

function begin(query) {
  const key = `${performance.timeOrigin}-${past.size}`; // entries outlive a reload, queries do not
  past.set(key, query);
  history.pushState({ key }, "", pageOf(query));
  run(query);
}

function arrive() {
  const asked = new URLSearchParams(location.search);
  const [mediaId, text] = [asked.get("mediaId"), asked.get("text")?.trim()];
  const query = past.get(history.state?.key) ?? (mediaId ? { mediaId } : text ? { text } : null);
  if (query) run(query);
  else reset();
}

addEventListener("popstate", arrive);

// ---- the least similarity

function leastSimilarity() {
  const value = Number(number.value);
  return Number.isFinite(value) ? Math.min(100, Math.max(0, value)) : 0;
}

function searchAgain(delay) {
  clearTimeout(settling);
  settling = setTimeout(() => current && run(current, { fresh: false }), delay);
}

range.addEventListener("input", () => {
  number.value = range.value;
  searchAgain(SETTLE_MS);
});
number.addEventListener("input", () => {
  range.value = leastSimilarity();
  searchAgain(SETTLE_MS * 2);
});
number.addEventListener("change", () => (number.value = leastSimilarity()));
$("lift").addEventListener("click", () => {
  number.value = range.value = 0;
  searchAgain(0);
  number.focus();
});
$("retry").addEventListener("click", () => {
  run(current, { fresh: false });
  $("matches").focus({ preventScroll: true });
});

// ---- words coming in

$("words").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = words.value.trim();
  if (!text) return words.focus();
  if (matchMedia("(hover: none)").matches) words.blur(); // the keyboard of a phone would cover the matches
  if (current?.text === text) run(current);
  else begin({ text });
});

const isField = (target) => Boolean(target.closest?.("input, textarea, select, [contenteditable]"));

addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !readsWords) return;
  if (isField(event.target) && event.target.type !== "file" && event.target.type !== "range") return;
  event.preventDefault();
  words.focus();
  words.select();
});

// ---- pictures coming in: chosen, dropped, pasted

// The server decides what a picture is; this only chooses which of several files to send.
const looksLikePicture = (file) => file.type.startsWith("image/") || /\.(heic|heif|avif|tiff?|jxl|webp)$/i.test(file.name);

function choose(files) {
  const pictures = files.filter(looksLikePicture);
  const file = pictures[0] ?? files[0];
  const notice = files.length > 1 ? `Of the ${files.length} files, only “${file.name}” is used: one search uses one picture.` : "";
  begin({ file, notice });
}

function decline(sentence) {
  $("notice").textContent = sentence;
  scrollTo({ top: 0 });
}

$("file").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = ""; // so that choosing the same file again is a change again
  if (files.length) choose(files);
});

addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    choose(files);
  } else if (!isField(event.target)) {
    const text = event.clipboardData?.getData("text/plain").trim();
    if (text && readsWords) {
      event.preventDefault();
      words.value = text; // searched for when its owner says so: it may not have been meant for us
      words.focus();
    } else {
      decline("There is no picture in what you pasted. Copy the picture itself, or save it and choose the file.");
    }
  }
});

const carries = (event, type) => Boolean(event.dataTransfer?.types.includes(type));
const hint = (on) => ($("drop-hint").hidden = !on);

for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    if (!carries(event, "Files") && !carries(event, "text/uri-list")) return;
    event.preventDefault(); // without this the browser leaves the page and opens the file
    event.dataTransfer.dropEffect = "copy";
    hint(true);
  });
}
addEventListener("dragleave", (event) => event.relatedTarget === null && hint(false));
addEventListener("dragend", () => hint(false));
addEventListener("dragstart", (event) => event.target.closest?.("a, img") && event.preventDefault()); // only from outside

addEventListener("drop", (event) => {
  hint(false);
  if (!event.dataTransfer) return;
  const files = [...event.dataTransfer.files];
  if (!files.length && !carries(event, "text/uri-list")) return;
  event.preventDefault();
  const first = [...event.dataTransfer.items].find((item) => item.kind === "file");
  if (!files.length) {
    decline("That is a link, not a picture. Save the picture first, then drop the file.");
  } else if (files.length === 1 && first?.webkitGetAsEntry?.()?.isDirectory) {
    decline("That is a folder. Drop a picture from it.");
  } else {
    choose(files);
  }
});

// In the beginning the whole field is a target for the mouse; the keyboard has the file input itself.
$("ask").addEventListener("click", (event) => {
  if (document.body.dataset.view === "start" && !event.target.closest("input, label, .threshold")) $("file").click();
});

// ---- begin

$("brand").href = pageOf(null);
if (clientId) {
  $("client").textContent = `Catalogue of ${clientId}`;
  $("client").title = clientId;
  $("client").hidden = false;
}
range.value = leastSimilarity();
beginWithKey(withClient("v1/search"), () => {
  if (isLocked()) reset();
  else if (current) run(current);
  else arrive();
});
arrive();
