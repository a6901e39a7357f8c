/** What to search with: a picture, a media of the catalogue, or words; or words beside one of the others. */
export interface TwinlensQuery {
  file?: File;
  mediaId?: string;
  /** What is shown beside the picture. */
  name?: string;
  text?: string;
}

/** A match, as `POST /v1/search` has it. */
export interface TwinlensMatch {
  productId: string;
  productName: string;
  mediaId: string;
  thumbnailUrl: string;
  similarity: number;
  cosine: number;
  grade: "identical" | "near-duplicate" | "similar" | "weak" | null;
  sku?: string | null;
  url?: string | null;
  attributes?: Record<string, unknown>;
  [name: string]: unknown;
}

export interface TwinlensAnswer {
  results: TwinlensMatch[];
  space: string;
  next?: string | null;
  [name: string]: unknown;
}

export interface TwinlensFailure extends Error {
  code: string;
  status: number;
  requestId: string;
  retryAfter: number;
}

export type TwinlensTexts = typeof TEXTS;
export declare const TEXTS: {
  [name: string]: string | Record<string, string>;
};

type Setting = string | number | null;

export declare class TwinlensSearch extends HTMLElement {
  endpoint: string | null;
  client: string | null;
  searchKey: string | null;
  limit: Setting;
  minSimilarity: Setting;
  minGrade: string | null;
  groupBy: string | null;
  fields: string | null;
  price: string | null;
  currency: string | null;
  mode: string | null;
  theme: string | null;
  filter: object | string | null;
  texts: Partial<TwinlensTexts> | string | null;
  open(): void;
  close(): void;
  cancel(): void;
  search(query: TwinlensQuery): Promise<void>;
}

declare global {
  interface HTMLElementTagNameMap {
    "twinlens-search": TwinlensSearch;
  }
}
