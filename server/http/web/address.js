// The page's address. It holds the whole query, so that reloading, going back and sending the address all work; only a
// file cannot be in it. What belongs to a part comes behind it: ?mediaId=5f0c...&crop=0,0,0.5,1&text=in+red&weight=4
//
// All addresses are relative, since the page may be shown below any path.

import { queryOf } from "./query.js";

const given = new URLSearchParams(location.search);
export const clientId = given.get("clientId");

// The attributes to offer as filters, in this order; null: those that the matches have.
export const chosenFacets = given.has("facets") ? given.get("facets").split(",").filter(Boolean) : null;

export function withClient(path, parameters = []) {
  const asked = new URLSearchParams(parameters);
  if (chosenFacets && path === "./") asked.set("facets", chosenFacets.join(","));
  if (clientId) asked.set("clientId", clientId);
  const text = asked.toString().replaceAll("%2C", ",");
  return text ? `${path}?${text}` : path;
}

export const thumbnailOf = (mediaId) => withClient(`v1/media/${encodeURIComponent(mediaId)}/thumbnail`);

// An address of a picture as the server gives it: it does not always know below which path this page is.
export const below = (address) => address.slice(address.lastIndexOf("/v1/media/") + 1);

// The address of the page with this query; of its beginning where there is none.
export function addressOf(query) {
  if (!query) return withClient("./");
  const pairs = query.parts.flatMap(({ text, mediaId, weight, crop }) => [
    text !== undefined ? ["text", text] : mediaId ? ["mediaId", mediaId] : ["file", ""],
    ...(crop ? [["crop", crop.map((one) => Number(one.toFixed(4))).join(",")]] : []),
    ...(weight !== undefined ? [["weight", weight]] : []),
  ]);
  for (const [name, { values, from, to }] of Object.entries(query.only)) {
    for (const value of values ?? []) pairs.push([`is.${name}`, written(value)]);
    if (from !== undefined) pairs.push([`from.${name}`, from]);
    if (to !== undefined) pairs.push([`to.${name}`, to]);
  }
  if (query.min > 0) pairs.push(["min", query.min]);
  if (query.all) pairs.push(["all", "yes"]);
  return withClient("./", pairs);
}

// What the address asks for: the query, null where it asks for nothing; and whether a file was in it, which is lost.
export function read(search) {
  const query = queryOf();
  let lost = false;
  let last = {}; // the part that what follows belongs to; a lost one takes what was its own with it
  for (const [name, value] of new URLSearchParams(search)) {
    const [kind, attribute] = [name.slice(0, name.indexOf(".")), name.slice(name.indexOf(".") + 1)];
    if (name === "text" && value.trim()) query.parts.push((last = { text: value.trim() }));
    else if (name === "mediaId" && value) query.parts.push((last = { mediaId: value }));
    else if (name === "file") [lost, last] = [true, {}];
    else if (name === "crop") last.crop = cropOf(value);
    else if (name === "weight") last.weight = numberOf(value);
    else if (name === "min") query.min = Math.min(100, Math.max(0, numberOf(value) ?? 0));
    else if (name === "all") query.all = true;
    else if (kind === "is") (query.only[attribute] ??= { values: [] }).values?.push(valueOf(value));
    else if (kind === "from" || kind === "to") query.only[attribute] = { ...query.only[attribute], [kind]: numberOf(value) };
  }
  return { query: query.parts.length ? query : null, lost };
}

// A text is written as it is, unless it would be read as something else: 39 is a number, "39" a text.
const READ_AS_JSON = /^(true|false|-?\d+(\.\d+)?([eE][-+]?\d+)?|".*")$/s;
const written = (value) => (typeof value === "string" && !READ_AS_JSON.test(value) ? value : JSON.stringify(value));

function valueOf(text) {
  try {
    return READ_AS_JSON.test(text) ? JSON.parse(text) : text;
  } catch {
    return text;
  }
}

function numberOf(text) {
  const number = Number(text);
  return text.trim() && Number.isFinite(number) ? number : undefined;
}

function cropOf(text) {
  const crop = text.split(",").map(numberOf);
  const [left, top, right, bottom] = crop;
  const sound = crop.length === 4 && crop.every((one) => one >= 0 && one <= 1) && left < right && top < bottom;
  return sound ? crop : undefined;
}
