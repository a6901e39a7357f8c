import { createHmac } from "node:crypto";

type Bounds = {
  client?: string; filter?: object; limit?: number; origins?: string[];
  expires?: number; // seconds since 1970
  rate?: number; // requests a second
  fields?: string[];
};

export function deriveSearchKey(key: string, bounds: Bounds = {}): string {
  const id = /^twinlens_([a-z0-9]{12})_[\w-]{43}$/.exec(key)?.[1];
  if (id === undefined) throw new Error("A search key is derived from a key of Twinlens.");
  const { client, filter, limit, origins, expires, rate, fields } = bounds;
  const document = JSON.stringify({ version: 1, key: id, client, filter, limit, origins, expires, rate, fields });
  const signed = `twinlens-search.${Buffer.from(document).toString("base64url")}`;
  const secret = createHmac("sha256", key).update("twinlens search keys 1").digest();
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
