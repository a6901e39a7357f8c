// Requests that say how far they are and can be cancelled: XMLHttpRequest does both, and fetch only the second.

import { Failure, refused, unreachable } from "./failure.js";
import { keyHeaders } from "./key.js";

const limit = Number(document.body.dataset.maxUpload) || Infinity; // bytes, of a whole request

// A form has more to it than its files.
const ROUND_A_FILE = 64 * 1024;
export const largestUpload = limit - ROUND_A_FILE;

// POST it: the answer's JSON. `fields` alone go as JSON; beside files, as a form in which what is no text is JSON.
// `progress` is told the share of the files that has left, 0 to 1. Throws Failure; where `signal` says so, AbortError.
export function post(address, fields, { files = [], signal, progress = () => {} } = {}) {
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    const cancel = () => request.abort();
    const settle = (how, what) => {
      signal?.removeEventListener("abort", cancel);
      how(what);
    };
    request.open("POST", address);
    request.setRequestHeader("Accept", "application/json");
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    if (files.length) {
      request.upload.addEventListener("progress", ({ loaded, total }) => progress(total ? loaded / total : 0));
      request.upload.addEventListener("load", () => progress(1));
    }
    request.addEventListener("error", () => settle(reject, unreachable(files, limit)));
    request.addEventListener("abort", () => settle(reject, new DOMException("Cancelled.", "AbortError")));
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status >= 200 && request.status < 300 && answer) settle(resolve, answer);
      else if (request.status < 300) settle(reject, new Failure("The server's answer could not be read.", { again: true }));
      else settle(reject, refused(request.status, answer, request.getResponseHeader("Retry-After")));
    });
    if (signal?.aborted) return settle(reject, new DOMException("Cancelled.", "AbortError"));
    signal?.addEventListener("abort", cancel, { once: true });
    if (files.length) {
      request.send(form(fields, files));
    } else {
      request.setRequestHeader("Content-Type", "application/json");
      request.send(JSON.stringify(fields));
    }
  });
}

function form(fields, files) {
  const made = new FormData();
  for (const file of files) made.append("file", file, file.name); // the bytes as they are: a picture finds itself exactly
  for (const [name, value] of Object.entries(fields)) {
    made.append(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  return made;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a gateway's own page, for one
  }
}
