// The page of Twinlens: pictures and words in, the matches out. One search at a time: a newer one ends the older one, and
// whatever still comes of that is not shown. Each query is an entry of the browser's history.

import { addressOf, clientId, read, withClient } from "./address.js";
import { card, placeholders } from "./card.js";
import { showParts } from "./chips.js";
import { beginCrop, isCropping, leaveCrop } from "./crop.js";
import { byId } from "./element.js";
import { facetsToAsk, forgetFacets, learn, showFacets } from "./facets.js";
import { Failure } from "./failure.js";
import { beginIntake } from "./intake.js";
import { askForKey, begin as beginWithKey, hasKey, isLocked } from "./key.js";
import { beginLeast, least, settle, showLeast } from "./least.js";
import { hideOutcome, offerAgain, offerToCancel, say, setState, showFailure, showPrint, showProgress } from "./outcome.js";
import {
  WEIGHT_OF_LESS, isOnePicture, isWords, queryOf, shown, titleOf, withChanged, withOnly, withPart, withoutPart,
} from "./query.js";
import { countFacets, isBounded, search } from "./search.js";
import { forgetSought, showName, showSought, wordsOf } from "./sought.js";
import { plural } from "./wording.js";

const PATIENCE_MS = 400; // an answer slower than this gets an empty grid instead of the last matches

const results = byId("results");
const more = byId("more");
const words = byId("text");

let current = null; // the query on the page
let running = new AbortController(); // its request
let next = null; // where its further matches are
let counts = {}; // of its facets

// ---- one search at a time

async function run(query, { fresh = true } = {}) {
  settle();
  running.abort();
  const own = (running = new AbortController());
  current = query;
  if (isLocked()) return; // it is searched for when there is a key
  document.body.dataset.view = "search";
  document.body.dataset.kind = isWords(query) ? "words" : isOnePicture(query) ? "picture" : "several";
  byId("skip").textContent = "Skip to the matches";
  showSought(query);
  showParts(query, { weighed, removed });
  if (fresh) scrollTo({ top: 0 });
  hideOutcome();
  next = null;
  more.hidden = byId("lift").hidden = true;
  say("Searching…", noticeOf(query));
  setState("searching");
  const impatient = setTimeout(() => {
    if (own.signal.aborted) return;
    if (fresh) results.replaceChildren(...placeholders());
    offerToCancel();
  }, PATIENCE_MS);

  const started = performance.now();
  let state = "done";
  try {
    const progress = (share) => own.signal.aborted || showProgress(share);
    const answer = await search(query, {}, { signal: own.signal, progress });
    if (own.signal.aborted) return; // answered, but a newer search has the page
    showAnswer(answer, query, performance.now() - started);
    countLater(answer.results, query, own.signal);
  } catch (error) {
    if (own.signal.aborted) return;
    results.replaceChildren();
    state = showTrouble(error);
  } finally {
    clearTimeout(impatient);
    if (!own.signal.aborted) setState(state);
  }
}

// What went wrong instead of an answer; gives the state that the page is in then.
function showTrouble(error) {
  if (error.keyWanted) {
    say("");
    askForKey(hasKey() ? error.message : "");
    return "idle";
  }
  say("", noticeOf(current));
  if (!(error instanceof Failure)) console.error(error);
  showFailure(error instanceof Failure ? error : new Failure("The server's answer could not be shown.", { again: true }));
  return "failed";
}

function cancel() {
  running.abort();
  results.replaceChildren();
  say("Cancelled.");
  setState("idle");
  offerAgain();
  byId("retry").focus({ preventScroll: true });
}

const noticeOf = (query, notes = []) =>
  [query?.notice, ...(query?.parts.map((part) => part.note) ?? []), ...notes].filter(Boolean).join(" ");

// ---- the matches

const cardsOf = (matches, query, before = 0) =>
  matches.map((match, at) => card(match, { rank: before + at + 1, figures: isOnePicture(query), on: { like, more: moreLike, less: lessLike } }));

function showAnswer(answer, query, total) {
  const hadFocus = results.contains(document.activeElement);
  results.replaceChildren(...cardsOf(answer.results, query));
  nameSought(answer.results, query);
  next = answer.next ?? null;
  showCount(query, answer.notes);
  showPrint(answer, total);
  showFacets(counts, query.only, chose);
  if (hadFocus) byId("matches").focus({ preventScroll: true }); // the link that had it is gone
}

function showCount(query, notes = []) {
  const count = results.childElementCount;
  const filtered = Object.keys(query.only).length > 0;
  more.hidden = next === null;
  byId("lift").hidden = next !== null || !isBounded(query);
  if (count) {
    say(next === null ? plural(count, "match", "matches") : `The first ${count} matches`, noticeOf(query, notes));
  } else if (isBounded(query) && isWords(query)) {
    say("Nothing here is clearly what these words say.", "The closest there is may still be of use.");
  } else if (isBounded(query)) {
    say(`Nothing in this catalogue is at least ${query.min} % similar.`, noticeOf(query, notes));
  } else if (filtered) {
    say("Nothing passes these filters together.", "Take one of them out.");
  } else {
    say("The catalogue is empty.", noticeOf(query, notes));
  }
}

// An address names a media by its id alone; what it is called, its own match says. That is noted in the part itself, since
// it changes nothing of what is searched for.
function nameSought(matches, query) {
  for (const part of query.parts) {
    if (!part.mediaId || part.name) continue;
    const found = matches.find((match) => [match, ...(match.media ?? [])].some((one) => one.mediaId === part.mediaId));
    if (found) part.name = found.productName;
  }
  const part = query.parts[shown(query)];
  if (part?.name) showName(part.name);
  showParts(query, { weighed, removed });
  document.title = titleOf(query) ? `${titleOf(query)} – Twinlens` : "Twinlens";
}

// Which attributes there are to filter by is known from the matches; their counts follow, and no match waits for them.
async function countLater(matches, query, signal) {
  learn(matches);
  const facets = facetsToAsk();
  if (!facets || !matches.length) return;
  try {
    const counted = await countFacets(query, matches[0].mediaId, facets, signal);
    if (signal.aborted) return;
    counts = counted;
    showFacets(counts, query.only, chose);
  } catch {
    // The matches are there without it.
  }
}

// ---- further matches

async function goOn() {
  if (next === null || more.disabled) return;
  const [own, query, cursor] = [running, current, next];
  const hadFocus = document.activeElement === more;
  more.disabled = true;
  try {
    const answer = await search(query, { cursor }, { signal: own.signal });
    if (own.signal.aborted) return;
    const before = results.childElementCount;
    results.append(...cardsOf(answer.results, query, before));
    next = answer.next ?? null;
    showCount(query, answer.notes);
    if (hadFocus) (results.children[before]?.querySelector("a") ?? byId("matches")).focus({ preventScroll: true });
  } catch (error) {
    if (own.signal.aborted) return;
    more.hidden = true;
    setState(showTrouble(error));
  } finally {
    more.disabled = false;
  }
}

more.addEventListener("click", goOn);
let wentDown = false;
addEventListener("scroll", () => (wentDown = scrollY > 100), { passive: true });
new IntersectionObserver(([seen]) => seen.isIntersecting && wentDown && goOn(), { rootMargin: "300px" }).observe(more);

// ---- going back and forth

const past = new Map();

function begin(query, { fresh = true, replace = false } = {}) {
  const asked = { ...query, min: isOnePicture(query) ? least() : 0 };
  const key = `${performance.timeOrigin}-${past.size}`; // entries outlive a reload, queries do not
  past.set(key, asked);
  if (replace) history.replaceState({ key }, "", addressOf(asked));
  else history.pushState({ key }, "", addressOf(asked));
  run(asked, { fresh });
}

const LOST = "This address was made with a picture from a device, which no address can hold. Choose the picture again.";

function arrive() {
  const { query, lost } = read(location.search);
  const known = past.get(history.state?.key);
  const asked = known ?? (query && { ...query, notice: lost ? LOST : "" });
  if (!asked) return reset(lost ? LOST : "");
  if (isOnePicture(asked)) showLeast(asked.min);
  run(asked);
}

function reset(notice = "") {
  running.abort();
  current = next = null;
  forgetSought();
  showParts(null);
  forgetFacets();
  counts = {};
  document.body.dataset.view = "start";
  delete document.body.dataset.kind;
  byId("skip").textContent = "Skip to the search";
  results.replaceChildren();
  hideOutcome();
  more.hidden = byId("lift").hidden = true;
  say("", notice);
  setState("idle");
}

addEventListener("popstate", arrive);

// ---- what people do

const like = (part) => begin(queryOf(part));
const moreLike = (part) => begin(withPart(current, part));
const lessLike = (part) => begin(withPart(current, { ...part, weight: WEIGHT_OF_LESS }));
const weighed = (at, weight) => begin(withChanged(current, at, { weight }), { fresh: false });
const chose = (name, condition) => begin(withOnly(current, name, condition), { fresh: false });

function removed(at) {
  const query = withoutPart(current, at);
  if (!query.parts.length) {
    history.pushState(null, "", addressOf(null));
    return reset();
  }
  // What is left alone counts as itself, whatever it weighed beside the others.
  begin(query.parts.length === 1 ? withChanged(query, 0, { weight: undefined }) : query, { fresh: false });
  byId("matches").focus({ preventScroll: true });
}

function cropped(crop) {
  const at = current ? shown(current) : -1;
  if (at >= 0) begin(withChanged(current, at, { crop }), { fresh: false });
}

// Words that were typed and not yet searched for are meant together with the picture.
function pictured(part) {
  const typed = words.value.trim();
  begin(typed && typed !== wordsOf(current) ? queryOf(part, { text: typed }) : queryOf(part));
}

function worded(text) {
  if (current && wordsOf(current) === text && isWords(current)) run(current);
  else begin(queryOf({ text }));
}

const added = (part) => begin(current ? withPart(current, part) : queryOf(part), { fresh: !current });

function declined(sentence) {
  byId("notice").textContent = sentence;
  scrollTo({ top: 0 });
}

beginIntake({
  reads: document.body.dataset.words === "on", // the server says so: not every model does
  on: { picture: pictured, added, words: worded, beside: (text) => added({ text }), say: declined },
});
beginCrop(cropped);
beginLeast(() => current && isOnePicture(current) && begin(current, { fresh: false, replace: true }));

byId("lift").addEventListener("click", () => {
  if (isWords(current)) return begin({ ...current, all: true }, { fresh: false });
  showLeast(0);
  begin(current, { fresh: false, replace: true });
});
byId("retry").addEventListener("click", () => {
  run(current, { fresh: false });
  byId("matches").focus({ preventScroll: true });
});
byId("cancel").addEventListener("click", cancel);
byId("facets-clear").addEventListener("click", () => begin({ ...current, only: {} }, { fresh: false }));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // below a prefix the address of the page is not the one that the link is relative to
  if (current) byId("matches").focus();
  else (document.body.dataset.words === "on" ? words : byId("file")).focus();
});

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (document.body.dataset.state === "searching") cancel();
  else if (isCropping() && event.target.closest?.(".frame")) leaveCrop();
});

// ---- begin

byId("brand").href = addressOf(null);
if (clientId) {
  byId("client").textContent = `Catalogue of ${clientId}`;
  byId("client").title = clientId;
  byId("client").hidden = false;
}
byId("facets").open = matchMedia("(min-width: 860px)").matches;
beginWithKey(withClient("v1/search"), () => {
  if (isLocked()) reset();
  else if (current) run(current);
  else arrive();
});
arrive();
