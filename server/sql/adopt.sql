-- Every statement of adopt.py, in the order in which they run, all in one transaction: a name, a sentence, named
-- parameters.

-- prepare --
-- Do not wait for ever for an application that still works on these tables. Times without a zone are UTC.
SET LOCAL lock_timeout = '10s';
SET LOCAL TimeZone = 'UTC'

-- lock_tables --
-- Nobody else reads or writes these tables until the transaction ends.
LOCK TABLE products, media, image_embeddings IN ACCESS EXCLUSIVE MODE

-- views_of_vectors --
-- Views that read the legacy vectors: they would go on reading the archive.
SELECT DISTINCT v.relname
FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid
JOIN pg_class v ON v.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = 'image_embeddings'::regclass
ORDER BY 1

-- foreign_keys_from_elsewhere --
-- Foreign keys of other tables; one that follows deletions changes or deletes rows when what it refers to is deleted.
SELECT k.conrelid::regclass::text AS "table", k.conname AS name, k.confrelid::regclass::text AS target,
    a.attname AS "column", k.confdeltype IN ('c', 'n', 'd') AS follows_deletions
FROM pg_constraint k
JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.confrelid IN ('products'::regclass, 'media'::regclass)
    AND k.conrelid NOT IN ('products'::regclass, 'media'::regclass, 'image_embeddings'::regclass)
ORDER BY 1, 2

-- constraints --
-- Constraints of a table. A NOT NULL is no constraint here.
SELECT k.conname AS name, k.contype::text AS kind,
    array(SELECT attname::text FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY(k.conkey) ORDER BY attname)
    AS columns
FROM pg_constraint k
WHERE k.conrelid = to_regclass(%(table)s) AND k.contype IN ('c', 'f', 'p', 'u', 'x')
ORDER BY k.contype = 'p', k.conname

-- unique_indexes --
-- Unique indexes of a table that belong to no constraint: name, columns.
SELECT c.relname,
    array(SELECT attname::text FROM pg_attribute WHERE attrelid = i.indrelid AND attnum = ANY(i.indkey) ORDER BY attname)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(table)s) AND i.indisunique AND i.indexprs IS NULL
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)

-- vector_indexes --
-- Indexes over the legacy vectors: only a search would read them.
SELECT c.relname
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = 'image_embeddings'::regclass AND a.amname IN ('hnsw', 'ivfflat')

-- strict_columns --
-- Columns that refuse a row without a value for them.
SELECT attname
FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
    AND attidentity = ''

-- drop_constraint --
-- Twinlens has its own constraint in its place.
ALTER TABLE {table} DROP CONSTRAINT {name}

-- rename_constraint --
-- Give it Twinlens' name.
ALTER TABLE {table} RENAME CONSTRAINT {name} TO {wanted}

-- drop_index --
-- Twinlens has its own index in its place, or needs none.
DROP INDEX {name}

-- rename_column --
-- Twinlens has another column of this name.
ALTER TABLE {table} RENAME COLUMN {column} TO {wanted}

-- drop_identity --
-- The application, or the API, sets the ids.
ALTER TABLE {table} ALTER COLUMN {column} DROP IDENTITY IF EXISTS

-- drop_default --
-- Twinlens sets its own default.
ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT

-- drop_not_null --
-- Twinlens adds rows without a value for it.
ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL

-- change_type --
-- Each type can be written as text, and each type that is wanted here can be read from text.
ALTER TABLE {table} ALTER COLUMN {column} TYPE {type} USING {column}::text::{type}

-- archive_digests --
-- Keep a copy of digests that are no SHA-256, before they are left out.
INSERT INTO twinlens_older_rows ("table", reason, kept, id, "row")
SELECT 'media', 'its contentDigest is no SHA-256, and was left out', true, id::text, to_jsonb(m)
FROM media m
WHERE "contentDigest"::text !~* '^(\\x)?[0-9a-f]{{64}}$'

-- change_digest --
-- Hexadecimal digits, with \x as bytea is printed or without, become bytes.
ALTER TABLE media ALTER COLUMN "contentDigest" TYPE bytea USING
    CASE WHEN "contentDigest"::text ~* '^(\\x)?[0-9a-f]{{64}}$' THEN decode(right("contentDigest"::text, 64), 'hex') END

-- make_archive --
-- Complete copies of rows that could not be kept as they were, with the reason. `kept`: the row is still there, changed.
CREATE TABLE twinlens_older_rows (
    "table" text NOT NULL,
    reason text NOT NULL,
    kept boolean NOT NULL,
    id text,
    "row" jsonb NOT NULL,
    "archivedAt" timestamptz NOT NULL DEFAULT now()
)

-- add_columns --
-- Columns that the legacy tables may lack.
ALTER TABLE products
    ADD COLUMN IF NOT EXISTS sku text,
    ADD COLUMN IF NOT EXISTS "isActive" boolean DEFAULT true,
    ADD COLUMN IF NOT EXISTS "createdAt" timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS "updatedAt" timestamptz DEFAULT now();
ALTER TABLE media
    ADD COLUMN IF NOT EXISTS "clientId" text,
    ADD COLUMN IF NOT EXISTS kind text DEFAULT 'image',
    ADD COLUMN IF NOT EXISTS status text DEFAULT 'ready',
    ADD COLUMN IF NOT EXISTS "thumbnailKey" text,
    ADD COLUMN IF NOT EXISTS "contentType" text,
    ADD COLUMN IF NOT EXISTS bytes bigint,
    ADD COLUMN IF NOT EXISTS width integer,
    ADD COLUMN IF NOT EXISTS height integer,
    ADD COLUMN IF NOT EXISTS "contentDigest" bytea,
    ADD COLUMN IF NOT EXISTS "createdAt" timestamptz DEFAULT now()

-- move_products --
-- Products that cannot be kept go to the archive.
WITH judged AS (
    SELECT ctid AS place, CASE
        WHEN id IS NULL OR length(id) NOT BETWEEN 1 AND 255 THEN 'its id is empty or too long'
        WHEN row_number() OVER (PARTITION BY id ORDER BY ctid) > 1 THEN 'another product has the same id'
        WHEN "clientId" IS NULL OR length("clientId") NOT BETWEEN 1 AND 255 THEN 'it belongs to no client'
    END AS reason
    FROM products
), gone AS (
    DELETE FROM products p USING judged j WHERE p.ctid = j.place AND j.reason IS NOT NULL
    RETURNING j.reason, p.id, to_jsonb(p) AS "row"
)
INSERT INTO twinlens_older_rows ("table", reason, kept, id, "row")
SELECT 'products', reason, false, id, "row" FROM gone

-- move_media --
-- Media that cannot be kept go to the archive.
WITH judged AS (
    SELECT ctid AS place, CASE
        WHEN id IS NULL OR length(id) NOT BETWEEN 1 AND 255 THEN 'its id is empty or too long'
        WHEN row_number() OVER (PARTITION BY id ORDER BY ctid) > 1 THEN 'another media has the same id'
        WHEN NOT EXISTS (SELECT FROM products p WHERE p.id = m."productId") THEN 'its product is not there'
        WHEN coalesce("s3Key", '') = '' THEN 'it has no s3Key'
    END AS reason
    FROM media m
), gone AS (
    DELETE FROM media m USING judged j WHERE m.ctid = j.place AND j.reason IS NOT NULL
    RETURNING j.reason, m.id, to_jsonb(m) AS "row"
)
INSERT INTO twinlens_older_rows ("table", reason, kept, id, "row")
SELECT 'media', reason, false, id, "row" FROM gone

-- clear_skus --
-- Of a client's products with the same SKU, the first keeps it.
WITH judged AS (
    SELECT ctid AS place, id, to_jsonb(products) AS "row", CASE
        WHEN length(sku) NOT BETWEEN 1 AND 255 THEN 'its SKU is empty or too long, and was left out'
        WHEN row_number() OVER (PARTITION BY "clientId", sku ORDER BY "createdAt", id) > 1
            THEN 'another product of its client has the same SKU, and keeps it'
    END AS reason
    FROM products
    WHERE sku IS NOT NULL
), noted AS (
    INSERT INTO twinlens_older_rows ("table", reason, kept, id, "row")
    SELECT 'products', reason, true, id, "row" FROM judged WHERE reason IS NOT NULL
)
UPDATE products p SET sku = NULL FROM judged j WHERE p.ctid = j.place AND j.reason IS NOT NULL

-- complete_products --
-- Fill in what is NULL. The older search never found a product whose isActive is NULL.
UPDATE products SET name = coalesce(name, id), "isActive" = coalesce("isActive", false),
    "createdAt" = coalesce("createdAt", now()), "updatedAt" = coalesce("updatedAt", "createdAt", now())
WHERE name IS NULL OR "isActive" IS NULL OR "createdAt" IS NULL OR "updatedAt" IS NULL

-- archive_unknown_values --
-- Keep a copy of media with a kind, status or size that Twinlens does not know. The older search asked for none of them.
INSERT INTO twinlens_older_rows ("table", reason, kept, id, "row")
SELECT 'media', reason, true, id, to_jsonb(m)
FROM media m
CROSS JOIN LATERAL (VALUES
    (lower(kind) NOT IN ('image', 'video'), 'Twinlens does not know its kind, and treats it as an image'),
    (lower(status) NOT IN ('pending', 'ready', 'failed'), 'Twinlens does not know its status, and treats it as ready'),
    (least(bytes, width - 1, height - 1) < 0, 'its size made no sense, and was left out')
) AS judged (wrong, reason)
WHERE wrong

-- correct_media --
-- The client is the product's. Of a product's media with the same bytes, the first alone keeps the digest.
UPDATE media m
SET "clientId" = p."clientId",
    kind = CASE WHEN lower(m.kind) = 'video' THEN 'video' ELSE 'image' END,
    status = CASE WHEN lower(m.status) IN ('pending', 'failed') THEN lower(m.status) ELSE 'ready' END,
    bytes = CASE WHEN m.bytes >= 0 THEN m.bytes END,
    width = CASE WHEN m.width > 0 THEN m.width END,
    height = CASE WHEN m.height > 0 THEN m.height END,
    "contentDigest" = CASE WHEN d.place = 1 AND octet_length(m."contentDigest") = 32 THEN m."contentDigest" END,
    "createdAt" = coalesce(m."createdAt", now())
FROM products p, (
    SELECT id, row_number() OVER (PARTITION BY "productId", "contentDigest" ORDER BY "createdAt", id) AS place FROM media
) d
WHERE p.id = m."productId" AND d.id = m.id

-- constrain --
-- The constraints and defaults that migration 1 gives the two tables.
ALTER TABLE products
    ALTER COLUMN "clientId" SET NOT NULL,
    ALTER COLUMN name SET NOT NULL,
    ALTER COLUMN "isActive" SET NOT NULL, ALTER COLUMN "isActive" SET DEFAULT true,
    ALTER COLUMN "createdAt" SET NOT NULL, ALTER COLUMN "createdAt" SET DEFAULT now(),
    ALTER COLUMN "updatedAt" SET NOT NULL, ALTER COLUMN "updatedAt" SET DEFAULT now(),
    ADD CONSTRAINT products_id_check CHECK (length(id) BETWEEN 1 AND 255),
    ADD CONSTRAINT "products_clientId_check" CHECK (length("clientId") BETWEEN 1 AND 255),
    ADD CONSTRAINT products_sku_check CHECK (length(sku) BETWEEN 1 AND 255),
    ADD CONSTRAINT "products_id_clientId_key" UNIQUE (id, "clientId"),
    ADD CONSTRAINT "products_clientId_sku_key" UNIQUE ("clientId", sku);
ALTER TABLE media
    ALTER COLUMN "productId" SET NOT NULL,
    ALTER COLUMN "clientId" SET NOT NULL,
    ALTER COLUMN kind SET NOT NULL, ALTER COLUMN kind SET DEFAULT 'image',
    ALTER COLUMN status SET NOT NULL, ALTER COLUMN status SET DEFAULT 'ready',
    ALTER COLUMN "s3Key" SET NOT NULL,
    ALTER COLUMN "createdAt" SET NOT NULL, ALTER COLUMN "createdAt" SET DEFAULT now(),
    ADD CONSTRAINT media_id_check CHECK (length(id) BETWEEN 1 AND 255),
    ADD CONSTRAINT media_kind_check CHECK (kind IN ('image', 'video')),
    ADD CONSTRAINT media_status_check CHECK (status IN ('pending', 'ready', 'failed')),
    ADD CONSTRAINT media_bytes_check CHECK (bytes >= 0),
    ADD CONSTRAINT media_width_check CHECK (width > 0),
    ADD CONSTRAINT media_height_check CHECK (height > 0),
    ADD CONSTRAINT "media_contentDigest_check" CHECK (octet_length("contentDigest") = 32),
    ADD CONSTRAINT "media_productId_contentDigest_key" UNIQUE ("productId", "contentDigest"),
    ADD CONSTRAINT "media_productId_clientId_fkey" FOREIGN KEY ("productId", "clientId")
        REFERENCES products (id, "clientId") ON DELETE CASCADE ON UPDATE CASCADE

-- add_primary_key --
-- Under Twinlens' name.
ALTER TABLE {table} ADD CONSTRAINT {wanted} PRIMARY KEY (id)

-- archive_vectors --
-- No search reads the legacy vectors under this name.
ALTER TABLE image_embeddings RENAME TO twinlens_older_embeddings

-- make_movable --
-- Where the rows lie whose vectors may move into a space. The table is gone when the transaction ends.
CREATE TEMPORARY TABLE twinlens_movable (place tid, "mediaId" text, "s3Key" text) ON COMMIT DROP

-- find_movable --
-- The legacy vectors that could be a space's: of the space's dimensions, not zero, the only vector of their media, and
-- of one picture that has no other vector.
WITH valid AS MATERIALIZED (
    SELECT e.ctid AS place, m.id, m."s3Key" AS s3_key, md5(vector_send(e.embedding::vector)) AS print,
        coalesce(encode(m."contentDigest", 'hex'), m."s3Key") AS picture
    FROM twinlens_older_embeddings e
    JOIN media m ON m.id = e."mediaId"::text AND m.kind = 'image'
    WHERE vector_dims(e.embedding::vector) = %(dimensions)s AND vector_norm(e.embedding::vector) > 0
)
INSERT INTO twinlens_movable
SELECT place, id, s3_key FROM valid
WHERE id NOT IN (SELECT id FROM valid GROUP BY id HAVING count(*) > 1)
    AND print NOT IN (SELECT print FROM valid GROUP BY print HAVING count(DISTINCT picture) > 1)
    AND picture NOT IN (SELECT picture FROM valid GROUP BY picture HAVING count(DISTINCT print) > 1)

-- sample --
-- Movable vectors, drawn at random.
SELECT e."mediaId"::text AS media_id, s."s3Key" AS s3_key, (e.embedding::vector)::real[] AS vector
FROM (SELECT * FROM twinlens_movable ORDER BY random() LIMIT %(count)s) s
JOIN twinlens_older_embeddings e ON e.ctid = s.place

-- move_vectors --
-- Copy all movable vectors into the space, at unit length.
INSERT INTO {space} (space, "mediaId", embedding)
SELECT %(number)s, s."mediaId", l2_normalize(e.embedding::vector)::halfvec
FROM twinlens_movable s
JOIN twinlens_older_embeddings e ON e.ctid = s.place

-- analyse --
-- Searches are planned badly until PostgreSQL knows how many rows there are.
ANALYZE products, media

-- count_all --
-- How much was adopted; `images` are ready, `vectors` are archived.
SELECT (SELECT count(*) FROM products) AS products, (SELECT count(DISTINCT "clientId") FROM products) AS clients,
    (SELECT count(*) FROM media) AS media,
    (SELECT count(*) FROM media WHERE kind = 'image' AND status = 'ready') AS images,
    (SELECT count(*) FROM twinlens_older_embeddings) AS vectors

-- count_archived --
-- How many rows could not be kept as they were, by table and reason.
SELECT "table", reason, kept, count(*) AS count FROM twinlens_older_rows GROUP BY 1, 2, 3 ORDER BY 1 DESC, 3, 2
