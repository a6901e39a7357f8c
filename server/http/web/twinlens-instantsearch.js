// A search client for InstantSearch, whose widgets then search a Twinlens server: by words, and by a picture.
//
//   import { twinlensClient } from "https://search.shop.example/web/twinlens-instantsearch.js";
//   const searchClient = twinlensClient({ endpoint: "https://search.shop.example", searchKey: "twinlens-search..." });
//   const search = instantsearch({ indexName: "products", searchClient });
//   searchClient.attach(search);
//
// docs/embed.md has the table of what becomes of each parameter. One file, without dependencies.

const MOST_HITS = 1000; // that pages reach, as with InstantSearch's own servers
const MOST_VALUES = 100; // of one facet, as the server counts them
const DEFAULT_VALUES = 10; // of one facet, where a widget names no number
const DEFAULT_PAGE = 20;
const KEPT_QUERIES = 30;
const KEPT_MS = 300_000; // an answer that is older is asked for again
const WORDS_WEIGHT = 2; // of words beside a picture: docs/searching.md has the measurement

// Parameters that change what is found, and that Twinlens has no like of. To leave them out would show something else.
const REFUSED = [
  "filters", "tagFilters", "optionalFilters", "optionalWords", "aroundLatLng", "aroundLatLngViaIP", "insideBoundingBox",
  "insidePolygon", "distinct", "similarQuery", "offset", "length",
];

const BOUNDS = { "<": "lt", "<=": "lte", ">": "gt", ">=": "gte" };

/** What went wrong, as a sentence; with the server's `code`, `status` and `requestId`, where it answered. */
export class TwinlensError extends Error {
  constructor(sentence, { code = "", status = 0, requestId = "" } = {}) {
    super(sentence);
    Object.assign(this, { name: "TwinlensError", code, status, requestId });
  }
}

/**
 * A client for `instantsearch({ searchClient })`.
 *
 * endpoint, searchKey: the server, and a search key that everybody may see; clientId where keys are off.
 * initial: what to search for while there are neither words nor a picture: {text} or {mediaId}. Without it nothing is
 *   found then, and nothing is asked.
 * groupBy: "product" for hits that are products, as most shops want; null for hits that are pictures.
 * fields: what hits have of their products, as far as the key shows it: ["url", "attributes"].
 * minSimilarity: of the matches of a picture, a percentage. mode: of words alone, "auto" or "visual".
 * indices: by the name of an index, further fields of the search, such as {cheap: {boosts: [...]}} for `sortBy`.
 */
export function twinlensClient(options) {
  return new Client(options);
}

class Client {
  #options;
  #base;
  #picture = null; // a File or Blob, or {mediaId}
  #searches = []; // the InstantSearch instances to ask again when the picture changes
  #lists = new Map(); // what has been found, by what was asked
  #kinds = new Map(); // the values of facets as the server has them, by attribute and text: 42, true
  #known = null; // a media that there is, to count with

  constructor({ endpoint, ...options }) {
    this.#base = new URL(`${endpoint.replace(/\/*$/, "")}/`, globalThis.document?.baseURI);
    this.#options = { groupBy: "product", fields: [], indices: {}, initial: null, ...options };
  }

  // ---- what a shop's page calls

  /** Have this InstantSearch search again, from its first page, whenever the picture changes. */
  attach(search) {
    this.#searches.push(search);
  }

  /** Search with a picture: a File, a Blob, or {mediaId} of a hit; null for none. Words then say what is different. */
  setPicture(picture) {
    this.#picture = picture;
    for (const search of this.#searches) search.helper?.setPage(0).search();
  }

  searchByImage(file) {
    this.setPicture(file);
  }

  get picture() {
    return this.#picture;
  }

  // ---- what InstantSearch calls

  async search(requests) {
    const results = await Promise.all(requests.map((request) => this.#answered(request)));
    return { results };
  }

  /** Of the values that most have, those that contain what is typed. */
  async searchForFacetValues(requests) {
    return Promise.all(requests.map(async (request) => {
      const { facetName, facetQuery = "", maxFacetHits = DEFAULT_VALUES, ...params } = request.params;
      const asked = { ...params, facets: [facetName], hitsPerPage: 0, page: 0, maxValuesPerFacet: MOST_VALUES };
      const { facets } = await this.#answered({ indexName: request.indexName, params: asked });
      const wanted = facetQuery.toLowerCase();
      const found = Object.entries(facets[facetName] ?? {}).filter(([value]) => value.toLowerCase().includes(wanted));
      return {
        facetHits: found.slice(0, maxFacetHits).map(([value, count]) => ({
          value, count, highlighted: marked(value, [facetQuery], params).value,
        })),
        exhaustiveFacetsCount: found.length < MOST_VALUES,
        processingTimeMS: 0,
      };
    }));
  }

  clearCache() {
    this.#lists.clear();
  }

  // ---- one request: a list that grows page by page

  async #answered({ indexName, params: given, ...flat }) {
    const params = given ?? flat;
    const hitsPerPage = params.hitsPerPage ?? DEFAULT_PAGE;
    const page = params.page ?? 0;
    const began = Date.now();
    this.#refuse(params);
    const words = (params.query ?? "").trim();
    const sought = this.#sought(words);
    if (!sought) return { ...empty(params), index: indexName, hitsPerPage };
    const list = this.#list(indexName, params, sought, hitsPerPage === 0);
    const wanted = Math.min((page + 1) * hitsPerPage, MOST_HITS);
    await this.#grow(list, Math.max(wanted, 1));
    const { total, facets = {}, facetStats = {} } = list.first;
    const reached = Math.min(total ?? list.matches.length, MOST_HITS);
    return {
      index: indexName,
      hits: list.matches.slice(page * hitsPerPage, wanted).map((match) => this.#hit(match, words, params)),
      nbHits: total ?? list.matches.length,
      page,
      nbPages: hitsPerPage ? Math.ceil(reached / hitsPerPage) : 0,
      hitsPerPage,
      facets: this.#counts(facets),
      facets_stats: statistics(facetStats),
      exhaustiveNbHits: true,
      exhaustiveFacetsCount: true,
      query: params.query ?? "",
      params: "",
      processingTimeMS: Date.now() - began,
    };
  }

  #refuse(params) {
    for (const name of REFUSED) {
      const value = params[name];
      const given = Array.isArray(value) ? value.length : value;
      if (given) throw new TwinlensError(`Twinlens has nothing like ${name}.`);
    }
    if ([params.facets].flat().includes("*")) throw new TwinlensError("Name the facets to count: Twinlens has no *.");
  }

  // What is searched with: `file` beside the fields of a search; null for nothing.
  #sought(words) {
    const picture = this.#picture;
    const file = globalThis.Blob && picture instanceof Blob ? picture : null;
    if (!picture && !words) return this.#options.initial && { ...this.#options.initial };
    if (!picture) return { text: words, ...(this.#options.mode && { mode: this.#options.mode }) };
    if (words) return { file, query: [file ? { file: 0 } : picture, { text: words, weight: WORDS_WEIGHT }] };
    return file ? { file } : { mediaId: picture.mediaId };
  }

  #list(indexName, params, sought, countsOnly) {
    const { clientId, groupBy, fields, minSimilarity, indices } = this.#options;
    const { file, ...named } = sought;
    const asked = { ...named, facets: this.#facets(params), ...indices[indexName] };
    if (clientId) asked.clientId = clientId;
    if (groupBy) Object.assign(asked, { groupBy, groupSize: 0 });
    if (fields.length) asked.fields = fields;
    const filter = this.#filter(params);
    if (filter) asked.filter = filter;
    // Of two pictures alone a percentage says something. Where it bounds the list, it bounds what is counted as well.
    if (minSimilarity && this.#picture && !named.query) {
      Object.assign(asked, { minSimilarity, facetsOver: "matches" });
    }
    // What passes the filter is the same whatever is searched with, so that no picture is sent once more to count it.
    const other = countsOnly && this.#known && !asked.facetsOver;
    if (other) {
      for (const name of ["text", "query", "mode", "fields"]) delete asked[name];
      asked.mediaId = this.#known;
    }
    return this.#kept(asked, other ? null : file ?? null);
  }

  #kept(asked, file) {
    const key = JSON.stringify(asked);
    let list = this.#lists.get(key);
    if (!list || list.file !== file || Date.now() - list.at > KEPT_MS) {
      list = { key, asked, file, at: Date.now(), matches: [], next: null, first: null, growing: null };
    }
    this.#lists.delete(key); // behind those that were used before it
    this.#lists.set(key, list);
    for (const oldest of this.#lists.keys()) {
      if (this.#lists.size <= KEPT_QUERIES) break;
      this.#lists.delete(oldest);
    }
    return list;
  }

  // At least so many matches, where there are as many. What is missing is asked for behind what is there, by the server's
  // cursor; a search key may allow fewer at once.
  #grow(list, wanted) {
    list.growing = this.#grown(list, wanted, list.growing);
    return list.growing;
  }

  async #grown(list, wanted, before) {
    await before; // whoever asks at the same time
    try {
      while (!list.first || (list.next && list.matches.length < wanted)) {
        const answer = await this.#send(list, wanted - list.matches.length);
        list.first ??= answer;
        list.matches.push(...answer.results);
        list.next = answer.next ?? null;
        this.#known = answer.results[0]?.mediaId ?? this.#known;
      }
    } catch (error) {
      if (this.#lists.get(list.key) === list) this.#lists.delete(list.key);
      if (list.asked.mediaId === this.#known) this.#known = null; // it may have gone from the catalogue
      throw error;
    }
  }

  async #send({ asked, file, next }, limit) {
    const body = { ...asked, limit, ...(next && { cursor: next }) };
    const headers = { Accept: "application/json" };
    if (this.#options.searchKey) headers.Authorization = `Bearer ${this.#options.searchKey}`;
    let sent = JSON.stringify(body);
    if (file) {
      sent = new FormData();
      sent.append("file", file, file.name || "picture"); // the bytes as they are: a picture finds itself exactly
      for (const [name, value] of Object.entries(body)) {
        sent.append(name, typeof value === "object" ? JSON.stringify(value) : value);
      }
    } else {
      headers["Content-Type"] = "application/json";
    }
    let response, answer;
    try {
      const options = { method: "POST", headers, body: sent, credentials: "omit" };
      response = await fetch(new URL("v1/search", this.#base), options);
    } catch {
      throw new TwinlensError("The search could not be reached.", { code: "unreachable" });
    }
    try {
      answer = await response.json();
    } catch {
      answer = null; // a gateway's own page, for one
    }
    if (!response.ok || !Array.isArray(answer?.results)) {
      throw new TwinlensError(answer?.error ?? `The search answered ${response.status} without saying why.`, {
        code: answer?.code, status: response.status, requestId: answer?.requestId,
      });
    }
    return answer;
  }

  // ---- facets and filters

  #facets({ facets = [], maxValuesPerFacet = DEFAULT_VALUES }) {
    const limit = Math.max(1, Math.min(maxValuesPerFacet, MOST_VALUES));
    return [...new Set([facets].flat())].map((attribute) => ({ attribute, limit, stats: true }));
  }

  #counts(facets) {
    const counts = {};
    for (const [attribute, values] of Object.entries(facets)) {
      counts[attribute] = {};
      for (const { value, count } of values) {
        counts[attribute][String(value)] = count;
        if (typeof value !== "string") this.#kinds.set(`${attribute}:${value}`, value);
      }
    }
    return counts;
  }

  // A value of a filter as the catalogue has it. A facet's value is a text here, and there a number, or true or false.
  #values(attribute, text) {
    const seen = this.#kinds.get(`${attribute}:${text}`);
    if (seen !== undefined) return [seen];
    if (text === "true" || text === "false") return [text, text === "true"];
    return text.trim() !== "" && String(Number(text)) === text ? [text, Number(text)] : [text];
  }

  #filter({ facetFilters = [], numericFilters = [] }) {
    const conditions = new Map();
    const of = (attribute) => {
      if (!conditions.has(attribute)) conditions.set(attribute, { any: [], all: [], not: [], bounds: {} });
      return conditions.get(attribute);
    };
    for (const one of [facetFilters].flat()) this.#facetFilter(one, of);
    for (const one of [numericFilters].flat()) this.#numericFilter(one, of);
    if (!conditions.size) return null;
    return { attributes: Object.fromEntries([...conditions].map(([name, one]) => [name, condition(name, one)])) };
  }

  // One text, or a list of which one must hold: `colour:red`, `colour:-red` for all but these, `colour:\-red` as it is.
  #facetFilter(given, of) {
    const parts = [given].flat().map((text) => {
      const at = text.indexOf(":");
      const [attribute, value] = [text.slice(0, at), text.slice(at + 1)];
      if (value.startsWith("-")) return { attribute, not: true, values: this.#values(attribute, value.slice(1)) };
      return { attribute, not: false, values: this.#values(attribute, value.replace(/^\\-/, "-")) };
    });
    const { attribute } = parts[0];
    const mixed = parts.some((one) => one.attribute !== attribute || (one.not && parts.length > 1));
    if (mixed) throw new TwinlensError("One of a list of facetFilters can hold of one attribute alone.");
    const values = parts.flatMap((one) => one.values);
    const found = of(attribute);
    if (parts[0].not) found.not.push(...values);
    else if (parts.length === 1 && values.length === 1) found.all.push(...values);
    else found.any.push(values);
  }

  #numericFilter(given, of) {
    const texts = [given].flat();
    const equal = texts.map((text) => /^(.*?)\s*=\s*(-?[\d.eE+-]+)$/.exec(text));
    if (texts.length > 1) {
      const same = equal.every((one) => one && !/[<>!]$/.test(one[1]) && one[1] === equal[0][1]);
      if (!same) throw new TwinlensError("Of a list of numericFilters one can hold where all are = of one attribute.");
      of(equal[0][1]).any.push(equal.map((one) => Number(one[2])));
      return;
    }
    const range = /^(.*?):\s*(-?[\d.]+)\s+TO\s+(-?[\d.]+)$/i.exec(texts[0]);
    const [, attribute, operator, number] = /^(.*?)\s*(<=|>=|!=|<|>|=)\s*(\S+)$/.exec(texts[0]) ?? [];
    if (!range && (attribute === undefined || Number.isNaN(Number(number)))) {
      throw new TwinlensError(`This numeric filter cannot be read: ${texts[0]}.`);
    }
    const found = of(range ? range[1] : attribute);
    const bound = (name, value) => {
      const tighter = name.startsWith("l") ? Math.min : Math.max;
      found.bounds[name] = name in found.bounds ? tighter(found.bounds[name], value) : value;
    };
    if (range) {
      bound("gte", Number(range[2]));
      bound("lte", Number(range[3]));
    } else if (operator === "=") found.all.push(Number(number));
    else if (operator === "!=") found.not.push(Number(number));
    else bound(BOUNDS[operator], Number(number));
  }

  // ---- hits

  #hit(match, words, params) {
    const { attributes = {}, media, ...own } = match;
    const image = new URL(own.thumbnailUrl.slice(own.thumbnailUrl.lastIndexOf("/v1/media/") + 1), this.#base).href;
    const objectID = this.#options.groupBy === "product" ? own.productId : own.mediaId;
    const hit = { ...attributes, ...own, objectID, name: own.productName, image, ...(media && { media }) };
    const searched = words.split(/\s+/).filter(Boolean);
    const texts = Object.entries({ ...attributes, name: hit.name }).filter(([, value]) => typeof value === "string");
    hit._highlightResult = Object.fromEntries(texts.map(([name, value]) => [name, marked(value, searched, params)]));
    return hit;
  }
}

// What one attribute must satisfy, as Twinlens has it.
function condition(attribute, { any, all, not, bounds }) {
  if (any.length > 1) throw new TwinlensError(`Of ${attribute}, Twinlens takes one list of values of which one holds.`);
  if (!not.length && !Object.keys(bounds).length) {
    if (!any.length && all.length === 1) return all[0];
    if (any.length && !all.length) return any[0];
  }
  return {
    ...bounds,
    ...(any.length && { containsAny: any[0] }),
    ...(all.length && { containsAll: all }),
    ...(not.length && { not: not.length === 1 ? not[0] : not }),
  };
}

// Numbers alone: InstantSearch's widgets calculate with them, and cannot with dates.
function statistics(given) {
  const numbers = Object.entries(given).filter(([, { min }]) => typeof min === "number");
  return Object.fromEntries(numbers.map(([attribute, { min, max }]) => [attribute, { min, max }]));
}

// The text with the words of the query between the marks that InstantSearch names, where a word of it begins with one.
function marked(text, words, { highlightPreTag = "<em>", highlightPostTag = "</em>" }) {
  const escaped = words.filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!escaped.length) return { value: text, matchLevel: "none", matchedWords: [] };
  const found = new Set();
  const value = text.replace(new RegExp(`(?<![\\p{L}\\p{N}])(?:${escaped.join("|")})`, "giu"), (word) => {
    found.add(word.toLowerCase());
    return `${highlightPreTag}${word}${highlightPostTag}`;
  });
  const matchLevel = !found.size ? "none" : found.size < words.length ? "partial" : "full";
  return { value, matchLevel, fullyHighlighted: false, matchedWords: [...found] };
}

function empty(params) {
  return {
    hits: [], nbHits: 0, page: 0, nbPages: 0, facets: {}, facets_stats: {}, exhaustiveNbHits: true,
    exhaustiveFacetsCount: true, query: params.query ?? "", params: "", processingTimeMS: 0,
  };
}
