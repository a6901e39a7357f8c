-- Every statement of the doctor: a name, a sentence, named parameters. They only read.
--
-- A statement that looks for something wrong gives one id for each thing that is wrong, and `count_found` counts them.
-- The ids of legacy tables may be of any type, and to_jsonb reads a column that may be missing. Of a Twinlens database
-- the ids are those of the API. {found} is a statement that looks for something wrong, {space} the table of the live
-- space.

-- count_found --
-- How many ids a statement gives, and the first three. A legacy table may lack an id.
WITH found AS MATERIALIZED ({found})
SELECT count(*), array(SELECT coalesce(id, '(none)') FROM found ORDER BY 1 LIMIT 3) FROM found

-- pgvector --
-- The version of pgvector in this database.
SELECT extversion FROM pg_extension WHERE extname = 'vector'

-- unsafe_ivfflat --
-- An IVFFlat index, in whatever schema.
SELECT c.oid::regclass::text AS id FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind = 'i' AND a.amname = 'ivfflat'

-- indexes --
-- The vector indexes of a table, with their operator class; a valid one was completed, a partial one holds some rows.
SELECT c.relname AS name, a.amname AS kind, o.opcname AS operators, i.indisvalid AS valid,
    i.indpred IS NOT NULL AS partial
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = to_regclass(%(table)s) AND a.amname IN ('hnsw', 'ivfflat')
ORDER BY c.relname


-- count_legacy --
-- How much the legacy tables hold.
SELECT (SELECT count(*) FROM products) AS products, (SELECT count(DISTINCT "clientId") FROM products) AS clients,
    (SELECT count(*) FROM media) AS media, (SELECT count(*) FROM image_embeddings) AS vectors

-- lengths --
-- The lengths of the shortest and of the longest vector; NULL where there is none.
SELECT min(vector_norm(embedding::vector)) AS shortest, max(vector_norm(embedding::vector)) AS longest
FROM image_embeddings

-- dimensions --
-- Which numbers of dimensions there are, the most common first.
SELECT vector_dims(embedding::vector) FROM image_embeddings WHERE embedding IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC

-- null_vectors --
-- A row without a vector.
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

-- sample_legacy --
-- Vectors drawn at random, each with the key of its picture. They are drawn by their place (ctid), so that no other
-- vector is read.
SELECT coalesce(e."mediaId"::text, '(none)') AS media_id, coalesce(m."s3Key"::text, '') AS s3_key,
    (e.embedding::vector)::real[] AS vector
FROM image_embeddings e
LEFT JOIN media m ON m.id::text = e."mediaId"::text
WHERE e.ctid = ANY(ARRAY(
    SELECT ctid FROM image_embeddings WHERE embedding IS NOT NULL ORDER BY random() LIMIT %(count)s
))

-- unlike_twins --
-- A vector that differs from the first vector of the same picture. Pictures are identified by digest, else by key.
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
-- A vector that equals, to the last bit, one of a different picture.
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
-- A media whose product does not exist.
SELECT m.id::text AS id FROM media m
WHERE NOT EXISTS (SELECT FROM products p WHERE p.id::text = m."productId"::text)

-- orphan_vectors --
-- A vector whose media does not exist.
SELECT e."mediaId"::text AS id FROM image_embeddings e
WHERE NOT EXISTS (SELECT FROM media m WHERE m.id::text = e."mediaId"::text)

-- crowded_media --
-- A media with more than one row in image_embeddings.
SELECT "mediaId"::text AS id FROM image_embeddings WHERE "mediaId" IS NOT NULL GROUP BY "mediaId" HAVING count(*) > 1

-- media_without_vectors --
-- An image without a vector. Twinlens makes none of videos.
SELECT m.id::text AS id FROM media m
WHERE NOT EXISTS (SELECT FROM image_embeddings e WHERE e."mediaId"::text = m.id::text)
    AND NOT starts_with(lower(coalesce(to_jsonb(m) ->> 'kind', 'image')), 'video')

-- media_without_pictures --
-- A media without a key: nothing says where the bytes of its picture lie.
SELECT id::text AS id FROM media WHERE coalesce("s3Key"::text, '') = ''

-- products_without_clients --
-- A product that belongs to no client.
SELECT id::text AS id FROM products WHERE coalesce("clientId"::text, '') = ''

-- repeated_skus --
-- A product that shares its SKU with another one of its client.
SELECT p.id::text AS id FROM (
    SELECT id, count(*) OVER (PARTITION BY "clientId", to_jsonb(products) ->> 'sku') AS many
    FROM products
    WHERE to_jsonb(products) ->> 'sku' <> ''
) p
WHERE p.many > 1

-- percentage --
-- What the older formula makes of a vector that is compared with itself.
SELECT "mediaId"::text AS media_id, embedding::vector <#> embedding::vector AS score,
    (1 + (embedding::vector <#> embedding::vector)) / 2 * 100 AS percentage
FROM image_embeddings
WHERE vector_norm(embedding::vector) > 0
ORDER BY "mediaId"::text
LIMIT 1


-- count_twinlens --
-- How much the catalogue holds. Only ready images have vectors.
SELECT (SELECT count(*) FROM products) AS products, (SELECT count(DISTINCT "clientId") FROM products) AS clients,
    (SELECT count(*) FROM media WHERE kind = 'image' AND status = 'ready') AS images

-- applied --
-- The numbers of the migrations that made this database.
SELECT number FROM twinlens_migrations

-- spaces --
-- Every space of the database. A retired one was live once and is kept as the way back.
SELECT number, id, dimensions, "artifactPath" AS artifact_path, live, to_jsonb(s) ->> 'retiredAt' IS NOT NULL AS retired
FROM twinlens_spaces s
ORDER BY number

-- count_vectors --
-- How many vectors the space holds.
SELECT count(*) FROM {space}

-- missing_media --
-- A ready image without a vector in the space: no search finds it.
SELECT coalesce(to_jsonb(m) ->> 'apiId', m.id) AS id FROM media m
WHERE m.kind = 'image' AND m.status = 'ready' AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)

-- earlier_readings --
-- An image that an earlier version of the readers has read, and that no server has looked at since.
SELECT coalesce(to_jsonb(m) ->> 'apiId', m.id) AS id FROM media m
JOIN {space} v ON v."mediaId" = m.id
LEFT JOIN twinlens_readings r ON r.space = %(number)s AND r.reading >= %(reading)s
WHERE v.reading < %(reading)s AND m.kind = 'image' AND m.status = 'ready'
    AND (r.space IS NULL OR (m.revision, m.id) > (r.revision, r."mediaId"))

-- unread_media --
-- An image that an earlier version of the readers has read, and that could not be read again.
SELECT coalesce(to_jsonb(m) ->> 'apiId', m.id) AS id FROM twinlens_unread u
JOIN media m ON m.id = u."mediaId"
JOIN {space} v ON v."mediaId" = u."mediaId" AND v.reading < %(reading)s
WHERE u.space = %(number)s

-- blank_media --
-- An image that shows nothing but one colour.
SELECT coalesce(to_jsonb(m) ->> 'apiId', m.id) AS id FROM {space} v JOIN media m ON m.id = v."mediaId"
WHERE v.blank AND m.kind = 'image' AND m.status = 'ready'

-- pending_media --
-- An image that another system has written, and that waits for a worker.
SELECT coalesce(m."apiId", m.id) AS id FROM media m WHERE m.status = 'pending' AND m.kind = 'image'

-- failed_media --
-- An image that a worker has set aside as failed.
SELECT coalesce(m."apiId", m.id) AS id FROM twinlens_pending q JOIN media m ON m.id = q."mediaId"
WHERE q."nextAt" IS NULL AND q.code IS NOT NULL

-- large_clients --
-- Clients with so many active vectors that they should have an index of their own.
SELECT "clientId" FROM {space} WHERE active GROUP BY "clientId" HAVING count(*) >= %(threshold)s ORDER BY 1

-- sample_space --
-- Vectors of the space drawn at random, with the key of each one's picture.
SELECT coalesce(to_jsonb(m) ->> 'apiId', m.id) AS media_id, m."s3Key" AS s3_key, (v.embedding::vector)::real[] AS vector
FROM {space} v
JOIN media m ON m.id = v."mediaId"
WHERE v.ctid = ANY(ARRAY(SELECT ctid FROM {space} ORDER BY random() LIMIT %(count)s))
