-- Every statement of doctor.py: a name, a sentence, named parameters. All of them read, and nothing else.
--
-- Those that look for something wrong give one id for each, and `count_found` counts them. The older system's tables
-- are read with whatever types their ids have, and to_jsonb reads a column that need not be there. {found} is one of
-- those statements, {space} the table of the live space.

-- count_found --
-- How many a statement finds, and the first three.
WITH found AS MATERIALIZED ({found})
SELECT count(*), array(SELECT id FROM found ORDER BY id LIMIT 3) FROM found

-- pgvector --
-- Its version here.
SELECT extversion FROM pg_extension WHERE extname = 'vector'

-- indexes --
-- The vector indexes of a table: name, kind, operator class, whether whole, whether over a part of the rows alone.
SELECT c.relname, a.amname, o.opcname, i.indisvalid, i.indpred IS NOT NULL
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = to_regclass(%(table)s) AND a.amname IN ('hnsw', 'ivfflat')
ORDER BY c.relname


-- count_older --
-- How much the older system's tables hold: products, clients, media, vectors.
SELECT (SELECT count(*) FROM products), (SELECT count(DISTINCT "clientId") FROM products),
    (SELECT count(*) FROM media), (SELECT count(*) FROM image_embeddings)

-- lengths --
-- The shortest and the longest vector.
SELECT min(vector_norm(embedding::vector)), max(vector_norm(embedding::vector)) FROM image_embeddings

-- dimensions --
-- Which numbers of dimensions there are, the most common first.
SELECT vector_dims(embedding::vector), count(*) FROM image_embeddings WHERE embedding IS NOT NULL GROUP BY 1 ORDER BY 2 DESC

-- null_vectors --
-- No vector at all.
SELECT "mediaId"::text AS id FROM image_embeddings WHERE embedding IS NULL

-- zero_vectors --
-- A vector without a direction.
SELECT "mediaId"::text AS id FROM image_embeddings WHERE vector_norm(embedding::vector) = 0

-- other_lengths --
-- A vector that is not of unit length, nor zero.
SELECT "mediaId"::text AS id FROM image_embeddings
WHERE vector_norm(embedding::vector) > 0 AND abs(vector_norm(embedding::vector) - 1) > 0.001

-- other_dimensions --
-- A vector that the artifact cannot have made.
SELECT "mediaId"::text AS id FROM image_embeddings WHERE vector_dims(embedding::vector) <> %(dimensions)s

-- sample_older --
-- Vectors drawn at random, with the picture that each is said to be of. By their place, so that those that are not
-- drawn are not read.
SELECT e."mediaId"::text, m."s3Key"::text, (e.embedding::vector)::real[]
FROM image_embeddings e
LEFT JOIN media m ON m.id::text = e."mediaId"::text
WHERE e.ctid = ANY(ARRAY(
    SELECT ctid FROM image_embeddings WHERE embedding IS NOT NULL ORDER BY random() LIMIT %(count)s
))

-- unlike_twins --
-- One picture (by its digest, else by its key), more than one vector, and this one is not the first one's.
WITH pictures AS (
    SELECT id::text AS id, coalesce(to_jsonb(media) ->> 'contentDigest', nullif("s3Key"::text, '')) AS picture
    FROM media
), twins AS (
    SELECT picture, e.ctid AS place, count(*) OVER (PARTITION BY picture) AS many
    FROM pictures p
    JOIN image_embeddings e ON e."mediaId"::text = p.id
    WHERE p.picture IS NOT NULL
), several AS (
    SELECT e."mediaId"::text AS id, e.embedding::vector AS embedding,
        first_value(e.embedding::vector) OVER (PARTITION BY t.picture ORDER BY e."mediaId"::text, e.ctid) AS first
    FROM twins t
    JOIN image_embeddings e ON e.ctid = t.place
    WHERE t.many > 1 AND vector_norm(e.embedding::vector) > 0
)
SELECT id FROM several
WHERE CASE WHEN vector_dims(embedding) = vector_dims(first) THEN 1 - (embedding <=> first) ELSE -1 END < 0.999

-- shared_vectors --
-- A vector that a different picture has, too, to the last bit.
WITH prints AS MATERIALIZED (
    SELECT e."mediaId"::text AS id, md5(vector_send(e.embedding::vector)) AS print,
        coalesce(to_jsonb(m) ->> 'contentDigest', m."s3Key"::text) AS picture
    FROM image_embeddings e
    JOIN media m ON m.id::text = e."mediaId"::text
    WHERE vector_norm(e.embedding::vector) > 0
)
SELECT id FROM prints
WHERE print IN (SELECT print FROM prints GROUP BY print HAVING count(DISTINCT picture) > 1)

-- orphan_media --
-- Its product is not there.
SELECT m.id::text AS id FROM media m
WHERE NOT EXISTS (SELECT FROM products p WHERE p.id::text = m."productId"::text)

-- orphan_vectors --
-- Its media is not there.
SELECT coalesce(e."mediaId"::text, '(none)') AS id FROM image_embeddings e
WHERE NOT EXISTS (SELECT FROM media m WHERE m.id::text = e."mediaId"::text)

-- crowded_media --
-- More than one row of image_embeddings.
SELECT "mediaId"::text AS id FROM image_embeddings WHERE "mediaId" IS NOT NULL GROUP BY "mediaId" HAVING count(*) > 1

-- media_without_vectors --
-- An image that no vector stands for.
SELECT m.id::text AS id FROM media m
WHERE NOT EXISTS (SELECT FROM image_embeddings e WHERE e."mediaId"::text = m.id::text)
    AND NOT starts_with(lower(coalesce(to_jsonb(m) ->> 'kind', 'image')), 'video')

-- media_without_pictures --
-- Nothing says where the bytes of its picture lie.
SELECT id::text AS id FROM media WHERE coalesce("s3Key"::text, '') = ''

-- products_without_clients --
-- It belongs to nobody.
SELECT id::text AS id FROM products WHERE coalesce("clientId"::text, '') = ''

-- repeated_skus --
-- Another product of the client has the same SKU.
SELECT p.id::text AS id FROM (
    SELECT id, count(*) OVER (PARTITION BY "clientId", to_jsonb(products) ->> 'sku') AS many
    FROM products
    WHERE to_jsonb(products) ->> 'sku' <> ''
) p
WHERE p.many > 1

-- percentage --
-- What the older formula makes of a vector that meets itself.
SELECT "mediaId"::text, embedding::vector <#> embedding::vector, (1 + (embedding::vector <#> embedding::vector)) / 2 * 100
FROM image_embeddings
WHERE vector_norm(embedding::vector) > 0
ORDER BY "mediaId"::text
LIMIT 1


-- count_twinlens --
-- How much the catalogue holds: products, clients, ready images.
SELECT (SELECT count(*) FROM products), (SELECT count(DISTINCT "clientId") FROM products),
    (SELECT count(*) FROM media WHERE kind = 'image' AND status = 'ready')

-- applied --
-- The numbers of the migrations that made this database.
SELECT number FROM twinlens_migrations

-- spaces --
-- Every space of the database, and whether it was live once and is kept as the way back.
SELECT number, id, dimensions, "artifactPath", live, to_jsonb(s) ->> 'retiredAt' IS NOT NULL
FROM twinlens_spaces s
ORDER BY number

-- count_vectors --
-- How many vectors the space holds.
SELECT count(*) FROM {space}

-- missing_media --
-- A ready image without a vector in the space: no search finds it.
SELECT m.id FROM media m
WHERE m.kind = 'image' AND m.status = 'ready' AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)

-- large_clients --
-- Clients with so many active vectors that each should have an index of its own.
SELECT "clientId" FROM {space} WHERE active GROUP BY "clientId" HAVING count(*) >= %(threshold)s ORDER BY 1

-- sample_space --
-- Vectors of the space drawn at random, with the key of each one's picture.
SELECT v."mediaId", m."s3Key", (v.embedding::vector)::real[]
FROM {space} v
JOIN media m ON m.id = v."mediaId"
WHERE v.ctid = ANY(ARRAY(SELECT ctid FROM {space} ORDER BY random() LIMIT %(count)s))
