// The key, where the server needs one: asked for, kept for this tab alone, and sent as a header, never in an address.

const KEPT_AS = document.body.dataset.keyName ?? "twinlens.key"; // an operator's key is none to search with
const PLAIN = /^[\x21-\x7e]+$/; // what a header can carry

const $ = (id) => document.getElementById(id);
const panel = $("key-panel");
const input = $("key");
const trouble = $("key-error");
const accept = $("key-accept");

const kept = storage();
let key = kept?.getItem(KEPT_AS) ?? "";
let needed = document.body.dataset.keys === "on"; // the server says so, and may think otherwise later
// How a key is tried. A search for nothing is refused as such, with 422, if only its key is good.
const SEARCHING = {
  method: "POST",
  body: "{}",
  headers: { "Content-Type": "application/json" },
  good: ({ ok, status }) => ok || status === 422,
};

let address = "";
let trial = SEARCHING;
let tell = () => {};

// A browser that keeps nothing for pages throws; the key then lasts until the next reload.
function storage() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

export const hasKey = () => key !== "";
export const keyHeaders = () => (key ? { Authorization: `Bearer ${key}` } : {});
export const isLocked = () => "locked" in document.body.dataset;

// A key is tried at `at`, in the way of `how`, which says of an answer and of its problem whether the key is good;
// `changed` is called when a key was accepted, and when it was forgotten.
export function begin(at, changed, how = SEARCHING) {
  address = at;
  tell = changed;
  trial = how;
  show();
}

// The server did not take the key, or wants one; `sentence` is its own.
export function askForKey(sentence) {
  needed = true;
  keep("");
  say(sentence);
  show();
}

function show() {
  const locked = needed && !key;
  if (locked) document.body.dataset.locked = "";
  else delete document.body.dataset.locked;
  panel.hidden = !locked;
  $("forget").hidden = !key;
  if (locked) input.focus();
}

function keep(text) {
  key = text;
  if (key) kept?.setItem(KEPT_AS, key);
  else kept?.removeItem(KEPT_AS);
}

function say(sentence) {
  trouble.textContent = sentence;
  trouble.hidden = !sentence;
  input.setAttribute("aria-invalid", String(Boolean(sentence)));
}

// Why the server does not take the key; empty where it does.
async function refusalOf(text) {
  if (!PLAIN.test(text)) return "That is no key: a key has letters, digits and signs, and no spaces.";
  let answer;
  try {
    const { method, body, headers } = trial;
    answer = await fetch(address, {
      method,
      body,
      headers: { ...headers, Accept: "application/json", Authorization: `Bearer ${text}` },
    });
  } catch {
    return "The server could not be reached. Check that it is running and that you are connected, then try again.";
  }
  const problem = answer.ok ? null : await answer.json().catch(() => null);
  if (trial.good(answer, problem)) return "";
  return problem?.error || `The server answered ${answer.status} without saying why.`;
}

panel.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text || accept.disabled) return input.focus();
  accept.disabled = true;
  const refusal = await refusalOf(text);
  accept.disabled = false;
  say(refusal);
  if (refusal) {
    input.focus();
    input.select();
    return;
  }
  input.value = "";
  keep(text);
  show();
  tell();
});

$("forget").addEventListener("click", () => {
  needed = true;
  keep("");
  say("");
  show();
  tell();
});
