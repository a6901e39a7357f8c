// A query: what is searched for, and among what. Queries never change: each of these functions gives another one.
//
// {parts, only, min, all}. A part is {text}, {mediaId, name, thumbnailUrl} or {file, name, note}, and may have a `weight`,
// and as a picture a `crop`: [left, top, right, bottom], fractions of the upright picture. `only` is what matches must be,
// by attribute: {values: [...]} or {from, to}. `min` is the least similarity in percent, and `all` says that words may
// find what is not like them at all.

// Texts are far less like the picture that they mean than two like pictures are: docs/searching.md has the measurements.
export const WEIGHT_OF_WORDS = 3;
export const WEIGHT_OF_LESS = -0.5;
export const MOST_PARTS = 16;
const STEPS = [0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 10];

export const queryOf = (...parts) => ({ parts, only: {}, min: 0, all: false });

export const isPicture = (part) => part.text === undefined;
export const nameOf = (part) => part.text ?? part.name ?? "";

export function weightOf(part, { parts }) {
  if (part.weight !== undefined) return part.weight;
  return isPicture(part) || !parts.some(isPicture) ? 1 : WEIGHT_OF_WORDS;
}

// One thing that matches are to be like: such a query is nothing but that.
export const alone = (query) => query.parts.length === 1 && weightOf(query.parts[0], query) > 0;
export const isWords = (query) => alone(query) && !isPicture(query.parts[0]);
export const isOnePicture = (query) => alone(query) && isPicture(query.parts[0]);
export const hasFile = (query) => query.parts.some((part) => part.file);

// The picture that stands beside the matches, as its place among the parts; -1 where there is none.
export const shown = (query) => query.parts.findIndex((part) => isPicture(part) && weightOf(part, query) > 0);

export const withPart = (query, part) => ({ ...query, parts: [...query.parts, part].slice(-MOST_PARTS) });

export function withoutPart(query, at) {
  return { ...query, parts: query.parts.filter((_, number) => number !== at) };
}

export function withChanged(query, at, change) {
  return { ...query, parts: query.parts.map((part, number) => (number === at ? { ...part, ...change } : part)) };
}

// A step up (1) or down (-1), on the same side of nothing; null where there is no further one.
export function stepped(weight, by) {
  const size = Math.abs(weight);
  const next = by > 0 ? STEPS.find((step) => step > size) : STEPS.findLast((step) => step < size);
  return next === undefined ? null : Math.sign(weight) * next;
}

// The query with this condition on an attribute; null takes it away.
export function withOnly(query, name, condition) {
  const only = { ...query.only };
  if (condition && (condition.values?.length || condition.from !== undefined || condition.to !== undefined)) {
    only[name] = condition;
  } else {
    delete only[name];
  }
  return { ...query, only };
}

// What `filter` of the API is for it; null where everything passes.
export function filterOf({ only }) {
  const attributes = Object.entries(only).map(([name, { values, from, to }]) => {
    if (values) return [name, values.length === 1 ? values[0] : values];
    return [name, { ...(from !== undefined && { gte: from }), ...(to !== undefined && { lte: to }) }];
  });
  return attributes.length ? { attributes: Object.fromEntries(attributes) } : null;
}

export function titleOf(query) {
  return query.parts.map((part) => (weightOf(part, query) < 0 ? `not ${nameOf(part)}` : nameOf(part))).filter(Boolean).join(" + ");
}
