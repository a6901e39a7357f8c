// Uses the API through its generated types: node built/use.js http://127.0.0.1:8000 picture.webp KEY
// Prints what it got as JSON. The compiler checks every name below against the description.

import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Code = components["schemas"]["ErrorCode"];
type Problem = components["schemas"]["Problem"];

const [server, path, key] = process.argv.slice(2);
if (!server || !path || !key) throw new Error("Give the server's address, a picture and a key.");
const client = createClient<paths>({ baseUrl: server, headers: { Authorization: `Bearer ${key}` } });
const file = new Blob([await readFile(path)], { type: "image/webp" });
const clientId = "typescript";

// openapi-fetch sends JSON unless it is told otherwise.
function form(fields: Record<string, unknown>): FormData {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one instanceof Blob) made.append(name, one);
      else made.append(name, String(one));
    }
  }
  return made;
}

function had<Answer>({ data, error }: { data?: Answer; error?: Problem }): Answer {
  if (data === undefined) throw new Error(error?.error ?? "no answer");
  return data;
}

function refused({ error }: { error?: Problem }): Code {
  if (error === undefined) throw new Error("This was to be refused.");
  return error.code;
}

const product = had(
  await client.PUT("/v1/products/{productId}", {
    params: { path: { productId: "ts-shoe" } },
    body: { name: "Red running shoe", isActive: true, attributes: { category: "shoes", price: 49.9 }, clientId },
  }),
);
const shopify = "gid://shopify/Product/1";
had(
  await client.PUT("/v1/products/{productId}", {
    params: { path: { productId: shopify }, header: { "If-None-Match": "*" } },
    body: { name: "A shoe", sku: "S-1", isActive: true, attributes: { colour: "red" }, clientId },
  }),
);
had(
  await client.PATCH("/v1/products/{productId}", {
    params: { path: { productId: shopify } },
    body: { name: "A better shoe", attributes: { colour: null }, clientId },
  }),
);
const page = had(await client.GET("/v1/products", { params: { query: { sku: "S-1", limit: 10, clientId } } }));
if (page.next !== null) throw new Error("There is one product of this SKU.");
const withMedia = had(await client.GET("/v1/products/{productId}", { params: { path: { productId: shopify } } }));
if (withMedia.media.length > 0) throw new Error("It has no pictures yet.");
const media = had(
  await client.POST("/v1/products/{productId}/media", {
    params: { path: { productId: product.id } },
    body: { file, clientId },
    bodySerializer: form,
  }),
);
const byPicture = had(
  await client.POST("/api/search/by-image", {
    params: { header: { "Twinlens-Deadline": 60, "Twinlens-Lane": "interactive" } },
    body: { file, clientId, limit: 3, minGrade: "similar" },
    bodySerializer: form,
  }),
);
const byMedia = had(
  await client.POST("/v1/search", {
    body: { mediaId: media.id, clientId, limit: 3, filter: { attributes: { price: { gte: 20, lt: 60 } } } },
  }),
);
const embedded = had(await client.POST("/v1/embeddings", { body: { file: [file, file] }, bodySerializer: form }));
if (!("embeddings" in embedded)) throw new Error("Vectors as bytes were not asked for.");
const thumbnail = had(
  await client.GET("/v1/media/{mediaId}/thumbnail", {
    params: { path: { mediaId: media.id } },
    parseAs: "blob",
  }),
);

const notAPicture: Code = "not_a_picture"; // no string that is no code compiles here
const codes = {
  notAPicture: refused(
    await client.POST("/embed-image", { body: { file: new Blob(["text"]) }, bodySerializer: form }),
  ),
  noSuchMedia: refused(await client.GET("/v1/media/{mediaId}", { params: { path: { mediaId: "none" } } })),
};

console.log(
  JSON.stringify({
    found: [byPicture.results[0], byMedia.results[0]].map((match) => [match?.productId, match?.grade]),
    similarity: byPicture.results[0]?.similarity,
    dimensions: embedded.embeddings.map((vector) => vector.length),
    thumbnail: thumbnail.size > 0,
    listed: page.products.map((one) => [one.id, one.name, one.sku]),
    codes,
    expected: codes.notAPicture === notAPicture,
  }),
);
