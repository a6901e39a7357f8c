-- What a search may be narrowed by, and what is known of the indexes that answer it.

-- Facts about a product that searches filter by: {"category": "shoes", "price": 49.9, "tags": ["new", "red"]}.
ALTER TABLE products ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object');
CREATE INDEX products_attributes ON products USING gin (attributes jsonb_path_ops);

-- The HNSW indexes of large clients, and how far each must look to find what an exact search finds.
CREATE TABLE twinlens_indexes (
    name text PRIMARY KEY,
    space integer NOT NULL REFERENCES twinlens_spaces (number) ON DELETE CASCADE,
    "clientId" text NOT NULL,
    vectors bigint NOT NULL,    -- active ones when it was measured
    "efSearch" integer NOT NULL CHECK ("efSearch" BETWEEN 1 AND 1000),
    recall double precision NOT NULL,    -- the mean recall@24 of that efSearch
    "measuredAt" timestamptz NOT NULL DEFAULT now()
);

-- Searches of callers that an index answered and an exact search then answered again: the newest of each space.
CREATE TABLE twinlens_recall (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space integer NOT NULL REFERENCES twinlens_spaces (number) ON DELETE CASCADE,
    "clientId" text NOT NULL,
    embedding halfvec NOT NULL,
    "limit" integer NOT NULL CHECK ("limit" > 0),
    "where" jsonb,    -- the filter, as it came
    expected integer NOT NULL,    -- how many matches there are
    found integer NOT NULL CHECK (found BETWEEN 0 AND expected),    -- how many of them the index had given
    "searchedAt" timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX twinlens_recall_space ON twinlens_recall (space, number);
