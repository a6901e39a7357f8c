// Filters: for each attribute its values with their counts, or for numbers a range. Which attributes there are, the page
// learns from the matches, unless its address names them (?facets=category,price).

import { chosenFacets } from "./address.js";
import { byId, element } from "./element.js";
import { heading, plural, valueName } from "./wording.js";

const MOST_FACETS = 8;
const MOST_VALUES = 20; // that are asked for
const SHOWN = 6; // until somebody wants to see all of them
const LONGEST_VALUE = 40; // characters: what is longer is a description

const panel = byId("facets");
const list = byId("facet-list");
const kinds = new Map(); // by name: "value", "list", "number", "unknown"
const ORDER = ["value", "unknown", "list", "number"];
const opened = new Set(); // those of which all values are shown
forgetFacets();

// Nothing is known of the catalogue, and nothing of it stays on the page.
export function forgetFacets() {
  list.replaceChildren();
  panel.hidden = true;
  opened.clear();
  kinds.clear();
  for (const name of chosenFacets ?? []) kinds.set(name, "unknown");
}

// Learn from matches which attributes there are. One that is a text of many words, or an address, is none to choose by.
export function learn(matches) {
  for (const { attributes = {} } of matches) {
    for (const [name, value] of Object.entries(attributes)) {
      const kind = kindOf(value);
      const known = kinds.get(name);
      if (!kind || (known === undefined && (chosenFacets || kinds.size === MOST_FACETS))) continue;
      if (known === undefined || known === "unknown" || kind === "list") kinds.set(name, kind);
    }
  }
}

function kindOf(value) {
  const [first, ...others] = [value].flat();
  if (typeof first === "number" && !others.length) return "number";
  const short = typeof first === "string" && first.length <= LONGEST_VALUE && !/^(https?:|\d{4}-\d\d-\d\d)/.test(first);
  if (!short && typeof first !== "boolean") return null;
  return Array.isArray(value) ? "list" : "value";
}

// What `facets` of the API is to count; null where nothing is known to count.
export function facetsToAsk() {
  const asked = [...kinds].map(([attribute, kind]) =>
    kind === "number" ? { attribute, stats: true, limit: 1 } : { attribute, limit: MOST_VALUES },
  );
  return asked.length ? asked : null;
}

// `counts` has what the answers say, {facets, facetStats}; `changed` is told an attribute's name, and what it must be.
export function showFacets({ facets: counts = {}, facetStats: stats = {} }, only, changed) {
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const names = inOrder([...new Set([...kinds.keys(), ...Object.keys(only)])], counts);
  const made = names.map((name) => facet(name, { counts, stats, only, changed })).filter(Boolean);
  list.replaceChildren(...made);
  const chosen = Object.keys(only).length;
  byId("facets-chosen").textContent = chosen ? plural(chosen, "chosen", "chosen") : "";
  byId("facets-clear").hidden = !chosen;
  panel.hidden = !made.length;
  const again = [...list.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused);
  again?.focus({ preventScroll: true });
}

// As the address has them; else first those with one value a product, then those with several, and within that the ones
// with fewer values, since they divide the catalogue more roughly.
function inOrder(names, counts) {
  if (chosenFacets) return names;
  const place = (name) => ORDER.indexOf(kinds.get(name) ?? "unknown");
  const values = (name) => counts[name]?.length ?? 0;
  return names.sort((one, other) => place(one) - place(other) || values(one) - values(other) || (one < other ? -1 : 1));
}

function facet(name, { counts, stats, only, changed }) {
  const range = kinds.get(name) === "number" || (only[name] && !only[name].values);
  const inside = range
    ? rangeOf(name, stats[name], only[name] ?? {}, changed)
    : valuesOf(name, counts[name] ?? [], only[name]?.values ?? [], changed);
  if (!inside) return null;
  return element("fieldset", "facet", [element("legend", "", heading(name)), inside], { dataset: { testid: "facet", attribute: name } });
}

// Null where there is nothing to choose: a single value, or as many as products, as with article numbers.
function valuesOf(name, counted, chosen, changed) {
  const missing = chosen.filter((value) => !counted.some((one) => one.value === value)).map((value) => ({ value, count: 0 }));
  const all = [...counted.filter((one) => one.value !== null), ...missing];
  if (!chosen.length && (all.length < 2 || all.every((one) => one.count < 2))) return null;
  const rows = all.map(({ value, count }, at) => {
    const box = element("input", "", [], {
      type: "checkbox", checked: chosen.includes(value), dataset: { key: JSON.stringify([name, value]) },
    });
    box.addEventListener("change", () => {
      const others = chosen.filter((one) => one !== value);
      changed(name, { values: box.checked ? [...others, value] : others });
    });
    const inside = [box, element("span", "facet-name", valueName(value)), " ", element("span", "facet-count", count.toLocaleString("en"))];
    const row = element("li", "", [element("label", "", inside)], { dataset: { testid: "facet-value" } });
    row.hidden = at >= SHOWN && !opened.has(name) && !box.checked;
    return row;
  });
  const made = element("div", "", [element("ul", "facet-values", rows)]);
  if (rows.some((row) => row.hidden)) {
    const more = element("button", "quiet", `All ${rows.length}`, { type: "button" });
    more.addEventListener("click", () => {
      opened.add(name);
      for (const row of rows) row.hidden = false;
      more.remove();
      rows[SHOWN].querySelector("input").focus();
    });
    made.append(more);
  }
  return made;
}

function rangeOf(name, found, { from, to }, changed) {
  if (!found?.count && from === undefined && to === undefined) return null;
  if (found?.min === found?.max && from === undefined && to === undefined) return null;
  const field = (label, value, placeholder) => {
    const given = { type: "number", step: "any", value: value ?? "", placeholder: placeholder ?? "", inputMode: "decimal", autocomplete: "off" };
    return element("input", "", [], { ...given, dataset: { key: JSON.stringify([name, label]) }, aria: { label: `${heading(name)} ${label}` } });
  };
  const low = field("from", from, found?.min);
  const high = field("to", to, found?.max);
  const read = (input) => (input.value.trim() && Number.isFinite(Number(input.value)) ? Number(input.value) : undefined);
  for (const one of [low, high]) one.addEventListener("change", () => changed(name, { from: read(low), to: read(high) }));
  return element("div", "facet-range", [low, element("span", "", "to", { aria: { hidden: "true" } }), high]);
}
