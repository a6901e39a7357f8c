-- Every statement of catalogue.py: a name, a sentence, named parameters. {space} is the space's table of vectors.

-- put_product --
-- Create a product, or change the client's own; no row when another client owns the id.
INSERT INTO products AS p (id, "clientId", name, sku, "isActive")
VALUES (%(id)s, %(client_id)s, %(name)s, %(sku)s, %(is_active)s)
ON CONFLICT (id) DO UPDATE
    SET name = excluded.name, sku = excluded.sku, "isActive" = excluded."isActive", "updatedAt" = now()
    WHERE p."clientId" = excluded."clientId"
RETURNING id, "clientId" AS client_id, name, sku, "isActive" AS is_active, "createdAt" AS created_at,
    "updatedAt" AS updated_at, xmax = 0 AS created

-- get_product --
-- One product of the client.
SELECT id, "clientId" AS client_id, name, sku, "isActive" AS is_active, "createdAt" AS created_at,
    "updatedAt" AS updated_at
FROM products
WHERE id = %(id)s AND "clientId" = %(client_id)s

-- lock_product_for_delete --
-- Keep media from being added to a product that is about to go.
SELECT FROM products WHERE id = %(id)s AND "clientId" = %(client_id)s FOR UPDATE

-- delete_product_media --
-- Delete a product's media and say where their bytes lie.
DELETE FROM media
WHERE "productId" = %(id)s AND "clientId" = %(client_id)s
RETURNING "s3Key" AS s3_key, "thumbnailKey" AS thumbnail_key

-- delete_product --
-- Delete a product of the client.
DELETE FROM products WHERE id = %(id)s AND "clientId" = %(client_id)s

-- lock_product --
-- Hold a product as it is (not deleted, not switched off) until a media and its vector are both in.
SELECT FROM products WHERE id = %(product_id)s AND "clientId" = %(client_id)s FOR SHARE

-- add_media --
-- Add a media; no row when the product has these very bytes already.
INSERT INTO media (id, "productId", "clientId", kind, "s3Key", "thumbnailKey", "contentType", bytes, width, height,
    "contentDigest")
VALUES (%(id)s, %(product_id)s, %(client_id)s, %(kind)s, %(s3_key)s, %(thumbnail_key)s, %(content_type)s, %(bytes)s,
    %(width)s, %(height)s, %(content_digest)s)
ON CONFLICT ("productId", "contentDigest") DO NOTHING
RETURNING id, "productId" AS product_id, "clientId" AS client_id, kind, status, "s3Key" AS s3_key,
    "thumbnailKey" AS thumbnail_key, "contentType" AS content_type, bytes, width, height,
    "contentDigest" AS content_digest, "createdAt" AS created_at

-- add_vector --
-- Store a media's vector in the space, unless it is there.
INSERT INTO {space} (space, "mediaId", embedding)
VALUES (%(space)s, %(media_id)s, %(embedding)s)
ON CONFLICT ("mediaId") DO NOTHING

-- find_media_by_digest --
-- The media of a product that has these very bytes.
SELECT id, "productId" AS product_id, "clientId" AS client_id, kind, status, "s3Key" AS s3_key,
    "thumbnailKey" AS thumbnail_key, "contentType" AS content_type, bytes, width, height,
    "contentDigest" AS content_digest, "createdAt" AS created_at
FROM media
WHERE "clientId" = %(client_id)s AND "productId" = %(product_id)s AND "contentDigest" = %(digest)s

-- get_media --
-- One media of the client.
SELECT id, "productId" AS product_id, "clientId" AS client_id, kind, status, "s3Key" AS s3_key,
    "thumbnailKey" AS thumbnail_key, "contentType" AS content_type, bytes, width, height,
    "contentDigest" AS content_digest, "createdAt" AS created_at
FROM media
WHERE id = %(id)s AND "clientId" = %(client_id)s

-- delete_media --
-- Delete a media of the client and say what it was.
DELETE FROM media
WHERE id = %(id)s AND "clientId" = %(client_id)s
RETURNING id, "productId" AS product_id, "clientId" AS client_id, kind, status, "s3Key" AS s3_key,
    "thumbnailKey" AS thumbnail_key, "contentType" AS content_type, bytes, width, height,
    "contentDigest" AS content_digest, "createdAt" AS created_at

-- media_vector --
-- A media's vector in the space, as it is stored.
SELECT embedding FROM {space} WHERE "mediaId" = %(media_id)s AND "clientId" = %(client_id)s

-- digests --
-- Which files the client has with a vector in the space, and under which product.
SELECT m."productId", m."contentDigest"
FROM media m
JOIN {space} v ON v."mediaId" = m.id
WHERE m."clientId" = %(client_id)s AND m."contentDigest" IS NOT NULL

-- search_exactly --
-- The nearest active media of the client, by looking at each one. Adding 0 keeps every vector index out of it.
WITH near AS MATERIALIZED (
    SELECT "mediaId", embedding
    FROM {space}
    WHERE "clientId" = %(client_id)s AND active
    ORDER BY (embedding <#> %(embedding)s) + 0, "mediaId"
    LIMIT %(candidates)s
), same AS MATERIALIZED (
    -- The very file that is asked for is a candidate in any case, however many look like it.
    SELECT v."mediaId", v.embedding
    FROM media m
    JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId" AND v.active
    WHERE m."clientId" = %(client_id)s AND (m."contentDigest" = %(digest)s OR m.id = %(media_id)s)
    ORDER BY v."mediaId"
    LIMIT %(limit)s
), candidates AS (
    SELECT "mediaId", embedding FROM near
    UNION ALL
    SELECT "mediaId", embedding FROM same WHERE "mediaId" NOT IN (SELECT "mediaId" FROM near)
)
SELECT p.id AS product_id, p.name AS product_name, m.id AS media_id, m."s3Key" AS s3_key, m.width, m.height,
    -- <=> divides by the norms that the stored halves really have. To the sixth decimal, since halves tell no more.
    round(greatest(-1, least(1, 1 - (c.embedding <=> %(embedding)s)))::numeric, 6)::float8 AS cosine
FROM candidates c
JOIN media m ON m.id = c."mediaId"
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE p."clientId" = %(client_id)s AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
ORDER BY cosine DESC, coalesce(m.id = %(media_id)s, false) DESC, coalesce(m."contentDigest" = %(digest)s, false) DESC,
    m.id
LIMIT %(limit)s

-- search_by_index --
-- The same through the client's own HNSW index: the client and active must be the index's own words to be used.
WITH near AS MATERIALIZED (
    SELECT "mediaId", embedding
    FROM {space}
    WHERE "clientId" = %(client_id)s AND active
    ORDER BY embedding <#> %(embedding)s
    LIMIT %(candidates)s
), same AS MATERIALIZED (
    -- The very file that is asked for is a candidate in any case, also where the index overlooks it.
    SELECT v."mediaId", v.embedding
    FROM media m
    JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId" AND v.active
    WHERE m."clientId" = %(client_id)s AND (m."contentDigest" = %(digest)s OR m.id = %(media_id)s)
    ORDER BY v."mediaId"
    LIMIT %(limit)s
), candidates AS (
    SELECT "mediaId", embedding FROM near
    UNION ALL
    SELECT "mediaId", embedding FROM same WHERE "mediaId" NOT IN (SELECT "mediaId" FROM near)
)
SELECT p.id AS product_id, p.name AS product_name, m.id AS media_id, m."s3Key" AS s3_key, m.width, m.height,
    -- <=> divides by the norms that the stored halves really have. To the sixth decimal, since halves tell no more.
    round(greatest(-1, least(1, 1 - (c.embedding <=> %(embedding)s)))::numeric, 6)::float8 AS cosine
FROM candidates c
JOIN media m ON m.id = c."mediaId"
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE p."clientId" = %(client_id)s AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
ORDER BY cosine DESC, coalesce(m.id = %(media_id)s, false) DESC, coalesce(m."contentDigest" = %(digest)s, false) DESC,
    m.id
LIMIT %(limit)s

-- set_search_effort --
-- How the next index search of this transaction goes: through the index, whatever the statistics make the planner
-- believe; so far; and on past that while rows are missing.
SELECT set_config('enable_sort', 'off', true), set_config('hnsw.ef_search', %(ef_search)s::text, true),
    set_config('hnsw.iterative_scan', 'relaxed_order', true)

-- list_indexes --
-- The HNSW indexes of the space, and whether each is whole.
SELECT c.relname, i.indisvalid
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = %(table)s::regclass AND a.amname = 'hnsw'

-- list_large_clients --
-- Clients with at least so many active vectors in the space.
SELECT "clientId", count(*) FROM {space} WHERE active GROUP BY "clientId" HAVING count(*) >= %(least)s

-- create_index --
-- An HNSW index of one client's own.
CREATE INDEX CONCURRENTLY {index} ON {space} USING hnsw (embedding halfvec_ip_ops)
WHERE "clientId" = {client} AND active

-- drop_index --
-- Drop an HNSW index without stopping searches.
DROP INDEX CONCURRENTLY IF EXISTS {index}

-- find_space --
-- An embedding space by its id.
SELECT number, id, dimensions, model, live FROM twinlens_spaces WHERE id = %(id)s

-- find_live_space --
-- The id of the live space, if there is one.
SELECT id FROM twinlens_spaces WHERE live

-- register_space --
-- Make a space's row and its table of vectors.
SELECT twinlens_register_space(%(id)s, %(dimensions)s, %(model)s, %(manifest)s::jsonb, %(path)s)

-- make_live --
-- Make a space the one that image_embeddings shows.
SELECT twinlens_make_live(%(number)s)

-- note_artifact --
-- Remember where the space's artifact lies now.
UPDATE twinlens_spaces SET manifest = %(manifest)s::jsonb, "artifactPath" = %(path)s
WHERE number = %(number)s AND (manifest, "artifactPath") IS DISTINCT FROM (%(manifest)s::jsonb, %(path)s)

-- ping --
-- Nothing, answered.
SELECT 1
