-- The store of pictures: which one belongs to this database, and which of its objects were swept away.

-- One row, once a server has started. The store holds an object with the same id, its mark: a volume that is not
-- mounted, or another database's store, is told from the right one by it.
CREATE TABLE twinlens_store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id text NOT NULL CHECK (id ~ '^[0-9a-f]{32}$'),
    "markedAt" timestamptz NOT NULL DEFAULT now(),
    "sweptAt" timestamptz NOT NULL DEFAULT now()    -- when a server last began to sweep the store
);

-- Media that never got a row, and whose objects were taken for orphans. None of them may get its row afterwards: an
-- upload that was held up for so long finds itself here, and is refused.
CREATE TABLE twinlens_swept (
    "mediaId" text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now()
);
