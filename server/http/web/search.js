// One search: the query as the server's call has it, and its answer.

import { withClient } from "./address.js";
import { alone, filterOf, isOnePicture, isPicture, isWords, weightOf, withOnly } from "./query.js";
import { fitting } from "./scaling.js";
import { largestUpload, post } from "./upload.js";

export const PAGE_OF_MATCHES = 24;
const TOO_LARGE = new Set(["picture_too_large", "upload_too_large"]);

// The server says whether its model has a threshold for words: what is below it, and is not named by them, was not meant.
const gradesWords = document.body.dataset.wordGrades === "on";
const isBoundByPercent = (query) => isOnePicture(query) && query.min > 0;
const isBoundByGrade = (query) => isWords(query) && gradesWords && !query.all;
export const isBounded = (query) => isBoundByPercent(query) || isBoundByGrade(query);

const fitted = new WeakMap(); // by file: what is sent in its place, and what is said about it

// What cards show of their products, all of it or less: a key may not be allowed to see everything.
const SHOWN = [["url", "attributes"], ["url"], []];
let mayShow = 0; // the first of them that this key may see

// The answer of POST /v1/search. Throws Failure; AbortError where `signal` says so. `more`: further fields of the call.
export async function search(query, more = {}, how = {}) {
  const asked = { limit: PAGE_OF_MATCHES, groupBy: "product", fields: SHOWN[mayShow], ...more };
  try {
    return await sent(query, asked, how);
  } catch (error) {
    if (error.code === "scope_missing" && !more.fields && mayShow < SHOWN.length - 1) {
      mayShow += 1;
      return search(query, more, how);
    }
    // Its bytes were few enough, but its pixels were not.
    if (!TOO_LARGE.has(error.code) || !query.parts.some((part) => part.file && !fitted.has(part.file))) throw error;
    return sent(query, asked, { ...how, smaller: true });
  }
}

async function sent(query, asked, { signal, progress, smaller = false }) {
  const files = [];
  const parts = [];
  for (const part of query.parts) {
    parts.push(await partOf(part, query, files, smaller));
    signal?.throwIfAborted();
  }
  const filter = filterOf(query);
  const fields = {
    ...(alone(query) ? single(parts[0], files) : { query: parts }),
    ...(filter && { filter }),
    ...(isBoundByPercent(query) && { minSimilarity: query.min }),
    ...(isBoundByGrade(query) && { minGrade: "similar" }), // what words name stays, whatever it looks like
    ...(isWords(query) && { explain: true }),
    ...asked,
  };
  const answer = await post(withClient("v1/search"), fields, { files, signal, progress });
  return { ...answer, notes: query.parts.map((part) => fitted.get(part.file)?.note).filter(Boolean) };
}

async function partOf(part, query, files, smaller) {
  const crop = part.crop && { crop: part.crop };
  const weight = { weight: weightOf(part, query) };
  if (!isPicture(part)) return { text: part.text, ...weight };
  if (part.mediaId) return { mediaId: part.mediaId, ...crop, ...weight };
  const known = fitted.get(part.file) ?? (await fitting(part.file, largestUpload, { always: smaller }));
  if (known.file !== part.file) fitted.set(part.file, known);
  files.push(known.file);
  return { file: files.length - 1, ...crop, ...weight };
}

// A query of one part names it outside of `query`; a file stands in its form by itself.
function single({ weight, file, ...named }, files) {
  return files.length ? { ...(named.crop && { crop: named.crop }) } : named;
}

// How many have which value of these facets, of all that the filters let through: {facets, facetStats}. Of an attribute
// that is filtered by, its other values are counted as well, as if it were not: they can be chosen beside it. Where all
// that passes is a match, a media that was found stands for the query, so that nothing is embedded again.
export async function countFacets(query, mediaId, facets, signal) {
  const bound = isBounded(query);
  const standing = bound ? query : { ...query, parts: [{ mediaId }] };
  const own = facets.filter(({ attribute }) => query.only[attribute]);
  const others = facets.filter(({ attribute }) => !query.only[attribute]);
  const over = bound ? { facetsOver: "matches" } : {};
  const count = (asked, counted) => search(asked, { limit: 1, fields: [], facets: counted, ...over }, { signal });
  const answers = await Promise.all([
    ...(others.length ? [count(standing, others)] : []),
    ...own.map((facet) => count(withOnly(standing, facet.attribute, null), [facet])),
  ]);
  return {
    facets: Object.assign({}, ...answers.map((answer) => answer.facets)),
    facetStats: Object.assign({}, ...answers.map((answer) => answer.facetStats)),
  };
}
