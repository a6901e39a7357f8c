// What came of a search: the line above the matches, how far an upload is, what went wrong, and how long it took.

import { byId, element } from "./element.js";
import { duration, stage, wait } from "./wording.js";

const results = byId("results");
const bar = byId("progress");
let countdown = 0;

// idle, searching, done or failed
export function setState(state) {
  results.dataset.state = state;
  results.setAttribute("aria-busy", String(state === "searching"));
  document.body.dataset.state = state;
  if (state !== "searching") {
    byId("cancel").hidden = true;
    showProgress(null);
  }
}

export function say(text, notice = "") {
  byId("status").textContent = text;
  byId("notice").textContent = notice;
}

// The share of an upload that has left, 0 to 1; null where nothing is being sent.
export function showProgress(share) {
  const sending = share !== null && share < 1;
  byId("sending").hidden = !sending;
  if (sending) {
    byId("sent").value = share;
    byId("sent-said").textContent = `${Math.round(share * 100)} %`;
  }
  bar.hidden = sending;
}

export function offerToCancel() {
  byId("cancel").hidden = false;
}

export function hideOutcome() {
  clearInterval(countdown);
  for (const id of ["error", "request-id", "retry", "print"]) byId(id).hidden = true;
  byId("error-text").textContent = "";
}

export function showFailure(failure) {
  const later = failure.retryAfter ? `Try again in ${wait(failure.retryAfter)}.` : "";
  byId("error-text").textContent = [failure.message, failure.advice, later].filter(Boolean).join(" ");
  byId("request-id").textContent = failure.requestId ? `Request ${failure.requestId}` : "";
  byId("request-id").hidden = !failure.requestId;
  byId("error").hidden = false;
  if (failure.again) offerAgain(failure.retryAfter);
}

// A way to ask the same again, in so many seconds.
export function offerAgain(after = 0) {
  const retry = byId("retry");
  const due = Date.now() + after * 1000;
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

export function showPrint(answer, total) {
  const parts = Object.entries(answer.timings ?? {}).filter(([, ms]) => Number.isFinite(ms));
  const space = answer.space ? ` · space ${answer.space.slice(0, 12)}` : "";
  byId("print-line").textContent = duration(total) + space;
  byId("print-line").title = answer.space ? `Embedding space ${answer.space}` : "";
  const rows = parts.map(([key, ms]) => [key.replace(/([A-Z])/g, " $1").toLowerCase(), stage(ms)]);
  rows.push(["in all, seen from this page", stage(total)]);
  byId("timings").replaceChildren(...rows.flatMap(([key, value]) => [element("dt", "", key), element("dd", "", value)]));
  byId("print").hidden = false;
}
