// <twinlens-search>: a button that opens a search by picture and by words, for a shop's own pages.
//
//   <script type="module" src="https://search.shop.example/web/twinlens-search.js"></script>
//   <twinlens-search endpoint="https://search.shop.example" search-key="twinlens-search..."></twinlens-search>
//
// docs/embed.md describes attributes, events, slots and parts. One file, without dependencies; importing it where there
// is no DOM does nothing. It sets no style and no script in markup, so that the strictest policy of a page lets it run.

const TAG = "twinlens-search";
const LIMIT = 24;
const WORDS_WEIGHT = 2; // of words beside a picture: docs/searching.md has the measurement
const LARGE_UPLOAD = 32 * 1024 * 1024; // the server's default limit; used only to explain a broken connection
const PREVIEW = 112; // pixels
const REFUSED = [413, 415, 422]; // asked again, the server would say the same

/** Every text that a person reads. A shop replaces any of them: `element.texts = { button: "Mit Bild suchen" }`. */
export const TEXTS = {
  button: "Search by picture",
  title: "Search by picture",
  close: "Close",
  back: "Back",
  drop: "Drop a picture here, or paste one.",
  choose: "Choose a picture",
  camera: "Take a photo",
  words: "Search by words",
  refine: "What should be different, in words",
  go: "Search",
  picture: "Your picture",
  remove: "Remove the picture",
  searching: "Searching…",
  cancel: "Cancel",
  cancelled: "Cancelled.",
  matches: { one: "{count} match", other: "{count} matches" }, // by the categories of Intl.PluralRules
  nothing: "Nothing like it was found.",
  rank: "No. {rank}",
  grades: { identical: "same picture", "near-duplicate": "nearly the same", similar: "similar", weak: "weak" },
  alike: "More like this",
  alikeOf: "More like this: {name}",
  more: "Show more",
  retry: "Try again",
  retryAfter: "Try again in {seconds} s.",
  notPicture: "That file is not a picture.",
  unreachable: "The search could not be reached. Check your connection, then try again.",
  broken: "The connection broke while the picture was being sent. It may be larger than the search accepts.",
  unreadable: "The search gave an answer that could not be read.",
  status: "The search answered {status} without saying why.",
  noEndpoint: "This search does not know its server: its attribute endpoint is missing or is no address.",
  notJson: "This search has an attribute that is not JSON: {name}.",
  errors: {}, // sentences in place of the server's, by its codes
};

const STYLE = `
:host {
  --_accent: var(--twinlens-accent, #1d4ed8); --_on-accent: var(--twinlens-on-accent, #fff);
  --_surface: var(--twinlens-surface, #fff); --_text: var(--twinlens-text, #1a1a1a);
  --_muted: var(--twinlens-muted, #595959); --_line: var(--twinlens-line, #d4d4d4);
  --_error: var(--twinlens-error, #b3261e); --_radius: var(--twinlens-radius, 8px);
  display: inline-block;
}
@supports (color: light-dark(red, red)) {
  :host {
    --_accent: var(--twinlens-accent, light-dark(#1d4ed8, #93b4ff));
    --_on-accent: var(--twinlens-on-accent, light-dark(#fff, #101828));
    --_surface: var(--twinlens-surface, light-dark(#fff, #1b1c1f));
    --_text: var(--twinlens-text, light-dark(#1a1a1a, #ededed));
    --_muted: var(--twinlens-muted, light-dark(#595959, #b4b4b4));
    --_line: var(--twinlens-line, light-dark(#d4d4d4, #45474d));
    --_error: var(--twinlens-error, light-dark(#b3261e, #ffb4ab));
  }
}
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([theme="auto"]) { color-scheme: light dark; }
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; }
button, input { font: inherit; color: inherit; }
button {
  cursor: pointer; min-height: 2.5em; padding: 0.4em 0.9em; border: 1px solid var(--_line);
  border-radius: var(--_radius); background: var(--_surface); color: var(--_text);
}
.main { background: var(--_accent); border-color: var(--_accent); color: var(--_on-accent); }
button:disabled { opacity: 0.6; cursor: default; }
:focus-visible { outline: 3px solid var(--_accent); outline-offset: 2px; }
dialog {
  width: min(60rem, 100vw); max-width: 100vw; height: min(50rem, 100dvh); max-height: 100dvh; padding: 0;
  border: 1px solid var(--_line); border-radius: var(--_radius); background: var(--_surface); color: var(--_text);
  overflow: hidden; text-align: start; text-transform: none; white-space: normal; letter-spacing: normal;
  font: 400 1rem/1.4 var(--twinlens-font, inherit);
}
dialog::backdrop { background: rgb(0 0 0 / 55%); }
.inside { display: flex; flex-direction: column; height: 100%; }
header, .row { display: flex; align-items: center; gap: 0.6em; flex-wrap: wrap; }
header { padding: 0.7em 1em; border-bottom: 1px solid var(--_line); }
h2 { flex: 1; margin: 0; font-size: 1.15em; }
.scroll { flex: 1; overflow: auto; padding: 1em; display: flex; flex-direction: column; gap: 0.9em; }
.scroll.over { outline: 3px dashed var(--_accent); outline-offset: -6px; }
.drop { padding: 1em; border: 2px dashed var(--_line); border-radius: var(--_radius); }
.drop p { flex: 1 1 12em; margin: 0; color: var(--_muted); }
form { display: flex; gap: 0.6em; }
input[type="search"] {
  flex: 1; min-width: 0; min-height: 2.5em; padding: 0.4em 0.7em; border: 1px solid var(--_muted);
  border-radius: var(--_radius); background: transparent;
}
input::placeholder { color: var(--_muted); opacity: 1; }
.query canvas, .query img { width: 3.5em; height: 3.5em; object-fit: cover; border-radius: var(--_radius); }
.query span { flex: 1; overflow-wrap: anywhere; }
.status, .error { margin: 0; flex: 1; }
.status { color: var(--_muted); }
.error { color: var(--_error); }
ol {
  display: grid; gap: 1em; margin: 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--twinlens-column, 9.5em), 100%), 1fr));
}
ol.waiting { opacity: 0.5; }
li { display: flex; flex-direction: column; gap: 0.4em; }
.card {
  flex: 1; display: flex; flex-direction: column; gap: 0.25em; padding: 0; border: 0; background: none; min-height: 0;
  color: inherit; text-align: start; text-decoration: none; border-radius: var(--_radius); overflow-wrap: anywhere;
}
.card:hover .name { text-decoration: underline; }
.frame { display: block; aspect-ratio: 1; background: #fff; border: 1px solid var(--_line);
  border-radius: var(--_radius); overflow: hidden; }
.frame img { display: block; width: 100%; height: 100%; object-fit: contain; }
.frame.missing img { visibility: hidden; }
.price { font-weight: 600; }
.match, .alike { font-size: 0.85em; color: var(--_muted); }
.alike { align-self: start; }
.camera { display: none; }
@media (pointer: coarse) { .camera { display: inline-block; } }
`;

let sheet; // one for all elements of the page, made when the first of them is

/** What went wrong, as a sentence for the person at the page. */
class Failure extends Error {
  constructor(sentence, { code = "", status = 0, requestId = "", retryAfter = 0 } = {}) {
    super(sentence);
    Object.assign(this, { code, status, requestId, retryAfter });
  }
}

// The element `tag.class` with its children; of what is given, functions and booleans are properties, all else attributes.
function make(kind, given = {}, ...children) {
  const [tag, name] = kind.split(".");
  const made = document.createElement(tag);
  if (name) made.className = name.replace("_", " ");
  for (const [key, value] of Object.entries(given)) {
    if (typeof value === "function" || typeof value === "boolean") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const filled = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
const listed = (text) => (text ?? "").split(",").map((one) => one.trim()).filter(Boolean);

// Attributes, each with a property: `searchKey` is `search-key`. Those of JSON take objects as properties.
const PLAIN = [
  "endpoint", "client", "search-key", "limit", "min-similarity", "min-grade", "group-by", "fields", "price", "currency",
  "mode", "theme",
];
const JSONS = ["filter", "texts"];
const property = (attribute) => attribute.replace(/-(.)/g, (_, letter) => letter.toUpperCase());

class TwinlensSearch extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ["texts", "pictures-only"];

  #query = null; // {file}, {mediaId, name, thumbnailUrl} or neither, and {text} or none
  #trail = []; // the queries before it
  #running = null; // the AbortController of the search that is under way
  #next = null; // the cursor of what follows
  #failed = null; // what to try again
  #textGrades = false; // whether the model is known to have grades for words
  #texts = TEXTS;
  #parts = {};

  connectedCallback() {
    if (!this.shadowRoot) {
      this.attachShadow({ mode: "open" });
      if (!sheet) {
        sheet = new CSSStyleSheet();
        sheet.replaceSync(STYLE);
      }
      this.shadowRoot.adoptedStyleSheets = [sheet];
      for (const name of [...PLAIN, ...JSONS].map(property)) this.#upgrade(name);
    }
    this.#build();
  }

  disconnectedCallback() {
    this.close();
  }

  attributeChangedCallback(_, before, now) {
    if (before !== now && this.shadowRoot) this.#build();
  }

  // A framework may have set a property before this class was there: it would hide the class's own.
  #upgrade(name) {
    if (!Object.hasOwn(this, name)) return;
    const value = this[name];
    delete this[name];
    this[name] = value;
  }

  // ---- what a page may call

  open() {
    const { dialog } = this.#parts;
    if (!dialog || dialog.open) return;
    dialog.showModal();
    document.addEventListener("paste", this.#paste);
  }

  close() {
    this.#parts.dialog?.close();
    this.#ended();
  }

  /** Search with one of `{file}`, `{mediaId}` and `{text}`, or with `{text}` beside one of the others. */
  search(query) {
    this.open();
    if (this.#query && !this.#same(query)) this.#trail.push(this.#query);
    return this.#run({ ...query });
  }

  /** End the search that is under way; what was shown before stays. */
  cancel() {
    if (!this.#running) return;
    this.#stop();
    this.#say(this.#texts.cancelled);
  }

  // ---- building

  #build() {
    this.#stop();
    this.#texts = TEXTS;
    let given;
    try {
      given = this.#json("texts") ?? {};
    } catch (failure) {
      given = {};
      this.#announce("error", failure);
    }
    const t = (this.#texts = { ...TEXTS, ...given });
    for (const name of ["grades", "errors"]) t[name] = { ...TEXTS[name], ...given[name] };
    const act = (name, text, onclick, more) =>
      make(`button.${name}`, { type: "button", part: name, onclick, ...more }, text);
    const fileInput = (label, more) =>
      make("input", { type: "file", accept: "image/*", hidden: true, "aria-label": label, ...more });
    const wasOpen = this.#parts.dialog?.open;
    const p = (this.#parts = {});

    p.file = fileInput(t.choose);
    p.shot = fileInput(t.camera, { capture: "environment" });
    for (const input of [p.file, p.shot]) {
      input.addEventListener("change", () => {
        if (input.files.length) this.#take(input.files[0]);
        input.value = ""; // the same picture may be chosen again
      });
    }
    p.words = make("input", { type: "search", part: "input", "aria-label": t.words, placeholder: t.words });
    p.form = make("form", { role: "search", part: "form", hidden: this.hasAttribute("pictures-only") },
      p.words, make("button", { type: "submit", part: "go" }, t.go));
    p.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = p.words.value.trim();
      const { file, mediaId, name, thumbnailUrl } = this.#query ?? {};
      if (text) this.search({ ...(file && { file }), ...(mediaId && { mediaId, name, thumbnailUrl }), text });
    });
    p.back = act("back", t.back, () => this.#run(this.#trail.pop()), { hidden: true });
    p.query = make("div.query_row", { part: "query", hidden: true });
    p.status = make("p.status", { role: "status", part: "status", tabindex: "-1" });
    p.cancel = act("cancel", t.cancel, () => this.cancel(), { hidden: true });
    p.error = make("p.error", { role: "alert", part: "error" });
    p.retry = act("retry", t.retry, () => this.#run(...this.#failed), { hidden: true });
    p.results = make("ol", { part: "results" });
    p.empty = make("div", { part: "empty", hidden: true }, make("slot", { name: "empty" }, t.nothing));
    p.more = act("more", t.more, () => this.#run(this.#query, this.#next), { hidden: true });
    p.scroll = make("div.scroll", {},
      p.query,
      make("div.drop_row", { part: "drop" }, make("p", {}, t.drop),
        act("choose", t.choose, () => p.file.click(), { autofocus: true }),
        act("camera", t.camera, () => p.shot.click()), p.file, p.shot),
      p.form,
      make("div.row", {}, p.status, p.cancel),
      make("div.row", {}, p.error, p.retry),
      p.results, p.empty, p.more);
    p.dialog = make("dialog", { part: "dialog", "aria-labelledby": "title" },
      make("div.inside", {},
        make("header", { part: "header" }, make("h2", { id: "title", part: "title" }, t.title), p.back,
          act("close", "×", () => this.close(), { "aria-label": t.close })),
        p.scroll));
    p.dialog.addEventListener("close", () => this.#ended());
    p.dialog.addEventListener("click", (event) => event.target === p.dialog && this.close()); // beside it
    const button = act("main", make("slot", { name: "label" }, t.button), () => this.open(),
      { part: "button", "aria-haspopup": "dialog" });
    for (const target of [button, p.dialog]) this.#takeDrops(target);
    this.shadowRoot.replaceChildren(button, p.dialog);
    if (wasOpen) this.open();
  }

  #takeDrops(target) {
    const over = (is) => this.#parts.scroll.classList.toggle("over", is);
    target.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      over(true);
    });
    target.addEventListener("dragleave", () => over(false));
    target.addEventListener("drop", (event) => {
      over(false);
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.#take(event.dataTransfer.files[0]);
    });
  }

  #paste = (event) => {
    if (!event.clipboardData?.files.length) return; // words, for the box
    event.preventDefault();
    this.#take(event.clipboardData.files[0]);
  };

  #take(file) {
    this.open();
    if (!file.type || file.type.startsWith("image/")) {
      this.search({ file });
      return;
    }
    this.cancel();
    this.#fail(new Failure(this.#texts.notPicture, { code: "not_a_picture" }));
  }

  #ended() {
    document.removeEventListener("paste", this.#paste);
    this.cancel();
  }

  // ---- one search at a time

  async #run(query, cursor = null) {
    this.#stop();
    const own = (this.#running = new AbortController());
    const p = this.#parts;
    this.#say(this.#texts.searching);
    p.cancel.hidden = false;
    p.retry.hidden = true;
    p.error.textContent = "";
    if (!cursor) {
      p.more.hidden = true;
      p.results.classList.add("waiting");
      this.#showQuery(query);
    }
    try {
      const answer = await this.#ask(query, cursor, own.signal);
      if (this.#running !== own) return; // a newer search has taken over, or this one was cancelled
      this.#stop();
      this.#show(query, answer, cursor);
    } catch (error) {
      if (this.#running !== own) return;
      this.#stop();
      this.#failed = [query, cursor];
      if (!cursor) p.results.replaceChildren();
      const refused = REFUSED.includes(error.status);
      if (refused && query.file) this.#showQuery({ text: query.text }); // the next words are not for this picture
      this.#fail(error instanceof Failure ? error : new Failure(this.#texts.unreadable), !refused);
      if (!(error instanceof Failure)) console.error(error);
    }
  }

  #stop() {
    this.#running?.abort();
    this.#running = null;
    this.#parts.cancel && (this.#parts.cancel.hidden = true);
    this.#parts.results?.classList.remove("waiting");
  }

  // The answer. Only an answer tells whether the model has grades for words: the least is asked for once one has.
  async #ask(query, cursor, signal) {
    const picture = Boolean(query.file || query.mediaId);
    if (!this.minGrade || (query.text && picture)) return this.#send(query, cursor, false, signal);
    if (picture) return this.#send(query, cursor, true, signal);
    if (!this.#textGrades) {
      const answer = await this.#send(query, cursor, false, signal);
      this.#textGrades = answer.results.length > 0 && answer.results.every((match) => match.grade !== null);
      if (!this.#textGrades) return answer;
    }
    try {
      return await this.#send(query, cursor, true, signal);
    } catch (error) {
      if (error.status !== 422) throw error;
      this.#textGrades = false; // another model has taken its place
      return this.#send(query, cursor, false, signal);
    }
  }

  async #send(query, cursor, graded, signal) {
    const { file, mediaId, text } = query;
    const asked = { limit: Number(this.limit) || LIMIT };
    if (this.client) asked.clientId = this.client;
    const filter = this.#json("filter");
    if (filter) asked.filter = filter;
    if (this.groupBy) asked.groupBy = this.groupBy;
    const fields = listed(this.fields);
    if (this.price) fields.push(`attributes.${this.price}`);
    if (fields.length) asked.fields = [...new Set(fields)];
    if (cursor) asked.cursor = cursor;
    if (graded) asked.minGrade = this.minGrade;
    // A percentage says something of two pictures; of words and a picture it is lower, and other for each model.
    if (!text && Number(this.minSimilarity)) asked.minSimilarity = Number(this.minSimilarity);
    if (text && (file || mediaId)) asked.query = [file ? { file: 0 } : { mediaId }, { text, weight: WORDS_WEIGHT }];
    else if (text) Object.assign(asked, { text }, this.mode && { mode: this.mode });
    else if (mediaId) asked.mediaId = mediaId;

    const headers = { Accept: "application/json" };
    if (this.searchKey) headers.Authorization = `Bearer ${this.searchKey}`;
    let body;
    if (file) {
      body = new FormData();
      body.append("file", file, file.name || "picture"); // the bytes as they are: a picture finds itself exactly
      for (const [name, value] of Object.entries(asked)) {
        body.append(name, typeof value === "object" ? JSON.stringify(value) : value);
      }
    } else {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(asked);
    }
    const options = { method: "POST", headers, body, signal, credentials: "omit" };
    return this.#fetched(new URL("v1/search", this.#base()), options, file);
  }

  async #fetched(address, options, file) {
    const t = this.#texts;
    let response, text;
    try {
      response = await fetch(address, options);
      text = await response.text();
    } catch {
      throw new Failure(file?.size > LARGE_UPLOAD ? t.broken : t.unreachable, { code: "unreachable" });
    }
    let answer = null;
    try {
      answer = JSON.parse(text);
    } catch {
      // a gateway's own page, for one
    }
    if (!response.ok) {
      throw new Failure(t.errors[answer?.code] ?? answer?.error ?? filled(t.status, { status: response.status }), {
        code: answer?.code, status: response.status, requestId: answer?.requestId,
        retryAfter: Number(response.headers.get("Retry-After")) || 0,
      });
    }
    if (!Array.isArray(answer?.results)) throw new Failure(t.unreadable);
    return answer;
  }

  #base() {
    try {
      if (!this.endpoint) throw new TypeError("none");
      return new URL(this.endpoint.replace(/\/*$/, "/"), document.baseURI);
    } catch {
      throw new Failure(this.#texts.noEndpoint, { code: "no_endpoint" });
    }
  }

  #json(name) {
    try {
      return JSON.parse(this.getAttribute(name) || "null");
    } catch {
      throw new Failure(filled(this.#texts.notJson, { name }), { code: "not_json" });
    }
  }

  // The server's paths begin below its own root, or below the prefix that its proxy names; the endpoint knows which.
  #address = (path) => new URL(path.slice(path.lastIndexOf("/v1/media/") + 1), this.#base()).href;

  #same = (query) => ["file", "mediaId", "text"].every((name) => query[name] === this.#query?.[name]);

  // ---- showing

  #announce(type, detail, options) {
    return this.dispatchEvent(new CustomEvent(type, { detail, ...options }));
  }

  #say(text) {
    this.#parts.status.textContent = text;
  }

  #fail(failure, again = false) {
    const p = this.#parts;
    const later = failure.retryAfter ? ` ${filled(this.#texts.retryAfter, { seconds: failure.retryAfter })}` : "";
    this.#say("");
    p.error.textContent = failure.message + later;
    p.retry.hidden = !again;
    this.#announce("error", failure);
  }

  #showQuery(query) {
    const p = this.#parts, t = this.#texts;
    this.#query = query;
    const { file, mediaId, name } = query;
    p.back.hidden = !this.#trail.length;
    p.empty.hidden = true;
    p.words.value = query.text ?? "";
    p.query.hidden = !(file || mediaId);
    p.words.placeholder = p.query.hidden ? t.words : t.refine;
    p.words.setAttribute("aria-label", p.words.placeholder);
    p.query.replaceChildren();
    if (p.query.hidden) return;
    const preview = file ? make("canvas", { width: PREVIEW, height: PREVIEW }) : make("img", { alt: "" });
    if (file) this.#preview(preview, file);
    else if (query.thumbnailUrl) preview.src = this.#address(query.thumbnailUrl);
    else preview.hidden = true;
    const remove = make("button", { type: "button", part: "remove", "aria-label": t.remove }, "×");
    remove.addEventListener("click", () => this.#forget());
    p.query.append(preview, make("span", {}, name || file?.name || t.picture), remove);
  }

  // Drawn, since an address of a blob would need the page's policy to allow it.
  async #preview(canvas, file) {
    try {
      const picture = await createImageBitmap(file);
      const side = Math.min(picture.width, picture.height); // the square in its middle
      const [left, top] = [(picture.width - side) / 2, (picture.height - side) / 2];
      canvas.getContext("2d").drawImage(picture, left, top, side, side, 0, 0, PREVIEW, PREVIEW);
      picture.close();
    } catch {
      canvas.hidden = true; // a format that this browser cannot show, and the server may read
    }
  }

  #forget() {
    const { text } = this.#query;
    if (text) {
      this.search({ text });
      this.#parts.words.focus();
      return;
    }
    this.#stop();
    this.#trail.push(this.#query);
    this.#showQuery({});
    this.#query = null;
    const p = this.#parts;
    p.results.replaceChildren();
    p.more.hidden = p.retry.hidden = true;
    p.error.textContent = "";
    this.#say("");
    p.words.focus();
  }

  #show(query, answer, cursor) {
    const p = this.#parts;
    const focused = this.shadowRoot.activeElement;
    const begun = cursor ? p.results.children.length : 0;
    const cards = answer.results.map((match, at) => this.#card(query, match, begun + at + 1));
    if (cursor) p.results.append(...cards);
    else p.results.replaceChildren(...cards);
    this.#next = answer.next ?? null;
    p.more.hidden = !this.#next;
    const count = begun + cards.length;
    p.empty.hidden = count > 0;
    this.#say(count ? this.#counted(count) : "");
    if (cursor) {
      if (focused === p.more) cards[0]?.querySelector(".card").focus();
    } else {
      p.scroll.scrollTop = 0;
      if (focused && !focused.isConnected) p.status.focus(); // the link that had it is gone
    }
    this.#announce("results", answer, { bubbles: true, composed: true });
  }

  get #language() {
    return this.closest("[lang]")?.lang || document.documentElement.lang || undefined;
  }

  #counted(count) {
    const { matches } = this.#texts;
    return filled(matches[new Intl.PluralRules(this.#language).select(count)] ?? matches.other, { count });
  }

  #card(query, match, rank) {
    const t = this.#texts;
    const image = make("img", { alt: "", loading: "lazy", decoding: "async", part: "image" });
    const frame = make("span.frame", {}, image);
    image.addEventListener("error", () => frame.classList.add("missing"));
    image.src = this.#address(match.thumbnailUrl);
    const card = match.url ? make("a.card", { href: match.url }) : make("button.card", { type: "button" });
    card.setAttribute("part", "card");
    card.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // a new tab, as asked
      if (!this.#announce("select", match, { bubbles: true, composed: true, cancelable: true })) event.preventDefault();
    });
    card.append(frame, make("span.name", { part: "name" }, match.productName));
    const price = match.attributes?.[this.price];
    if (price !== undefined && price !== null) card.append(make("span.price", { part: "price" }, this.#priced(price)));
    card.append(make("span.match", { part: "match" }, this.#matched(query, match, rank)));
    const { mediaId, productId, productName: name, thumbnailUrl } = match;
    const label = filled(t.alikeOf, { name });
    const alike = make("button.alike", { type: "button", part: "alike", "aria-label": label }, t.alike);
    alike.addEventListener("click", () => this.search({ mediaId, name, thumbnailUrl }));
    return make("li", { part: "result", "data-media-id": mediaId, "data-product-id": productId }, card, alike);
  }

  // Of words, the rank: their percentage with a picture is lower than that of two pictures and would mislead.
  #matched(query, match, rank) {
    const t = this.#texts;
    const percent = new Intl.NumberFormat(this.#language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
    const figure = query.text ? filled(t.rank, { rank }) : `${percent.format(match.similarity)} %`;
    const grade = t.grades[match.grade]; // none is said where its text is empty
    return grade ? `${figure}, ${grade}` : figure;
  }

  #priced(price) {
    const currency = this.currency;
    const number = typeof price === "number" ? price : Number.NaN;
    if (!currency || Number.isNaN(number)) return String(price);
    return new Intl.NumberFormat(this.#language, { style: "currency", currency }).format(number);
  }
}

for (const attribute of [...PLAIN, ...JSONS]) {
  Object.defineProperty(TwinlensSearch.prototype, property(attribute), {
    configurable: true,
    enumerable: true,
    get() {
      const value = this.getAttribute(attribute);
      return JSONS.includes(attribute) && value ? JSON.parse(value) : value;
    },
    set(value) {
      const asJson = JSONS.includes(attribute) && typeof value === "object";
      if (value === null || value === undefined) this.removeAttribute(attribute);
      else this.setAttribute(attribute, asJson ? JSON.stringify(value) : value);
    },
  });
}

if (globalThis.customElements && !customElements.get(TAG)) customElements.define(TAG, TwinlensSearch);

export { TwinlensSearch };
