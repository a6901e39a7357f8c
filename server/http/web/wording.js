// How figures and counts read.

export const GRADES = { identical: "same picture", "near-duplicate": "nearly the same", similar: "similar", weak: "weak" };

// How words name a product, whatever its picture looks like.
export const NAMED = {
  sku: "by its number", name: "by its name", words: "by these words", begun: "by its beginning", misspelt: "spelt alike",
};

export const percent = (similarity) => `${similarity.toFixed(1)} %`;
export const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
export const stage = (ms) => (ms < 1000 ? `${ms.toFixed(1)} ms` : duration(ms));

export function fileSize(bytes) {
  if (bytes < 1000) return plural(bytes, "byte", "bytes");
  if (bytes < 1_000_000) return `${Math.round(bytes / 1000)} KB`;
  return `${(bytes / 1_000_000).toFixed(bytes % 1_000_000 ? 1 : 0)} MB`;
}

export function wait(seconds) {
  return seconds < 90 ? plural(seconds, "second", "seconds") : plural(Math.ceil(seconds / 60), "minute", "minutes");
}

// An attribute's name as a heading: "colour", "shoe_size" and "shoeSize" read "Colour" and "Shoe size".
export function heading(name) {
  const plain = name.replace(/([a-z])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim().toLowerCase();
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

export const valueName = (value) => (value === true ? "yes" : value === false ? "no" : String(value));
