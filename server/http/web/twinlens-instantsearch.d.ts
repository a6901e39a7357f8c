export interface TwinlensOptions {
  endpoint: string;
  searchKey?: string;
  clientId?: string;
  /** What to search for while there are neither words nor a picture. */
  initial?: { text: string } | { mediaId: string } | null;
  groupBy?: "product" | null;
  fields?: string[];
  minSimilarity?: number;
  mode?: "auto" | "visual";
  /** By the name of an index, further fields of the search. */
  indices?: Record<string, Record<string, unknown>>;
}

export type TwinlensPicture = Blob | { mediaId: string } | null;

/** What InstantSearch takes as its `searchClient`. */
export interface TwinlensClient {
  search(requests: readonly any[]): Promise<{ results: any[] }>;
  searchForFacetValues(requests: readonly any[]): Promise<any[]>;
  clearCache(): void;
  attach(search: any): void;
  setPicture(picture: TwinlensPicture): void;
  searchByImage(picture: TwinlensPicture): void;
  readonly picture: TwinlensPicture;
}

export declare class TwinlensError extends Error {
  code: string;
  status: number;
  requestId: string;
}

export declare function twinlensClient(options: TwinlensOptions): TwinlensClient;
