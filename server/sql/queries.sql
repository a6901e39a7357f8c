-- Every statement of catalogue.py and search.py: a name, a sentence, named parameters. {space} is the space's table of
-- vectors. The columns carry the names of the fields of the records that they become.

-- product_columns --
-- The fields of a Product.
id, "clientId" AS client_id, name, sku, "isActive" AS is_active, attributes, "createdAt" AS created_at,
    "updatedAt" AS updated_at

-- media_columns --
-- The fields of a Media.
id, "productId" AS product_id, "clientId" AS client_id, kind, status, "s3Key" AS s3_key,
    "thumbnailKey" AS thumbnail_key, "contentType" AS content_type, bytes, width, height,
    "contentDigest" AS content_digest, "createdAt" AS created_at,
    coalesce((SELECT v.blank FROM {space} v WHERE v."mediaId" = media.id), false) AS blank

-- match_columns --
-- The fields of a Match, but for its cosine and whether it is blank.
p.id AS product_id, p.name AS product_name, m.id AS media_id, m."s3Key" AS s3_key, m.width, m.height

-- put_product --
-- Create a product, or change the client's own; no row when another client owns the id.
INSERT INTO products AS p (id, "clientId", name, sku, "isActive", attributes)
VALUES (%(id)s, %(client_id)s, %(name)s, %(sku)s, %(is_active)s, %(attributes)s)
ON CONFLICT (id) DO UPDATE
    SET name = excluded.name, sku = excluded.sku, "isActive" = excluded."isActive", attributes = excluded.attributes,
        "updatedAt" = now()
    WHERE p."clientId" = excluded."clientId"
RETURNING {product_columns}, xmax = 0 AS created

-- get_product --
-- One product of the client.
SELECT {product_columns}
FROM products
WHERE id = %(id)s AND "clientId" = %(client_id)s

-- lock_product_for_delete --
-- Keep media from being added to a product that is about to be deleted.
SELECT FROM products WHERE id = %(id)s AND "clientId" = %(client_id)s FOR UPDATE

-- delete_product_media --
-- Delete a product's media and give the keys of their bytes.
DELETE FROM media
WHERE "productId" = %(id)s AND "clientId" = %(client_id)s
RETURNING "s3Key" AS s3_key, "thumbnailKey" AS thumbnail_key

-- delete_product --
-- Delete a product of the client.
DELETE FROM products WHERE id = %(id)s AND "clientId" = %(client_id)s

-- lock_product --
-- Keep a product from being deleted or switched off until a media and its vector are both stored; and, before that, keep
-- the media's objects from being swept away.
SELECT pg_advisory_xact_lock_shared(%(locks)s, hashtext(%(id)s))
FROM products
WHERE id = %(product_id)s AND "clientId" = %(client_id)s
FOR SHARE

-- add_media --
-- Add a media; no row when the product has a media of the same bytes already, or when its objects were swept away.
INSERT INTO media (id, "productId", "clientId", kind, "s3Key", "thumbnailKey", "contentType", bytes, width, height,
    "contentDigest")
SELECT %(id)s, %(product_id)s, %(client_id)s, %(kind)s, %(s3_key)s, %(thumbnail_key)s, %(content_type)s, %(bytes)s,
    %(width)s, %(height)s, %(content_digest)s
WHERE NOT EXISTS (SELECT FROM twinlens_swept WHERE "mediaId" = %(id)s)
ON CONFLICT ("productId", "contentDigest") DO NOTHING
RETURNING {media_columns}

-- was_swept --
-- Whether the media's objects were swept away before it got its row.
SELECT FROM twinlens_swept WHERE "mediaId" = %(id)s

-- add_vector --
-- Store a media's vector in the space, unless it has one.
INSERT INTO {space} (space, "mediaId", embedding, blank, reading)
VALUES (%(space)s, %(media_id)s, %(embedding)s, %(blank)s, %(reading)s)
ON CONFLICT ("mediaId") DO NOTHING

-- find_media_by_digest --
-- The media of a product that has these bytes.
SELECT {media_columns}
FROM media
WHERE "clientId" = %(client_id)s AND "productId" = %(product_id)s AND "contentDigest" = %(digest)s

-- get_media --
-- One media of the client.
SELECT {media_columns}
FROM media
WHERE id = %(id)s AND "clientId" = %(client_id)s

-- delete_media --
-- Delete a media of the client and give what it was.
DELETE FROM media
WHERE id = %(id)s AND "clientId" = %(client_id)s
RETURNING {media_columns}

-- media_vector --
-- A media's vector in the space, as it is stored, and whether the picture is blank.
SELECT embedding, blank FROM {space} WHERE "mediaId" = %(media_id)s AND "clientId" = %(client_id)s

-- media_found --
-- A row where a search of the client's with this filter could find the media.
SELECT
FROM media m
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE m.id = %(media_id)s AND m."clientId" = %(client_id)s
    AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
    AND (%(product_ids)s::text[] IS NULL OR p.id = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)

-- same_files --
-- The client's other active media with the very bytes of this one. Equal bytes give equal vectors: the cosine is 1.
SELECT {match_columns}, 1::float8 AS cosine,
    coalesce((SELECT v.blank FROM {space} v WHERE v."mediaId" = m.id), false) AS blank
FROM media o
JOIN media m ON m."clientId" = o."clientId" AND m."contentDigest" = o."contentDigest" AND m.id <> o.id
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE o.id = %(media_id)s AND o."clientId" = %(client_id)s
    AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
ORDER BY m.id
LIMIT %(limit)s

-- digests --
-- Which files the client has with a vector in the space, and under which product.
SELECT m."productId" AS product_id, m."contentDigest" AS digest
FROM media m
JOIN {space} v ON v."mediaId" = m.id
WHERE m."clientId" = %(client_id)s AND m."contentDigest" IS NOT NULL

-- near_exactly --
-- The nearest active media of the client, by comparing with each one. Because of the + 0, no vector index is used.
SELECT "mediaId", embedding, blank
FROM {space}
WHERE "clientId" = %(client_id)s AND active AND NOT (%(without_blank)s AND blank)
ORDER BY (embedding <#> %(embedding)s) + 0, "mediaId"
LIMIT %(candidates)s

-- near_exactly_where --
-- The same among the media that pass the filter. The filter is applied first, so no media that passes is overlooked.
SELECT v."mediaId", v.embedding, v.blank
FROM products p
JOIN media m ON m."productId" = p.id AND m."clientId" = p."clientId"
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId" AND v.active
WHERE p."clientId" = %(client_id)s
    AND (%(product_ids)s::text[] IS NULL OR p.id = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    AND NOT (%(without_blank)s AND v.blank)
ORDER BY (v.embedding <#> %(embedding)s) + 0, v."mediaId"
LIMIT %(candidates)s

-- near_by_index --
-- The nearest through the client's own HNSW index. PostgreSQL uses the index because these conditions on the client and
-- on active are those of the index itself. A filter is applied afterwards to these candidates, and may leave too few.
SELECT "mediaId", embedding, blank
FROM {space}
WHERE "clientId" = %(client_id)s AND active
ORDER BY embedding <#> %(embedding)s
LIMIT %(candidates)s

-- search --
-- The best of the candidates of one of the statements above, with their cosines. Each row also says how many candidates
-- there were, and the lowest cosine among them.
WITH near AS MATERIALIZED (
    {near}
), same AS MATERIALIZED (
    -- Media of the very file that is searched for are always candidates: however many others look like it, even where
    -- an index overlooks them, and even before their vectors are made.
    SELECT m.id AS "mediaId", v.embedding, coalesce(v.blank, false) AS blank
    FROM media m
    JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
    LEFT JOIN {space} v ON v."mediaId" = m.id
    WHERE m."clientId" = %(client_id)s AND (m."contentDigest" = %(digest)s OR m.id = %(media_id)s)
        AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
        AND (v.embedding IS NOT NULL OR m."contentDigest" = %(digest)s)
    -- No index has this order. A search through an index is planned with sorting switched off: for the order of m.id
    -- alone, PostgreSQL would read the index on the ids of all media from end to end.
    ORDER BY m.id || ''
    LIMIT %(limit)s
), candidates AS (
    SELECT "mediaId", embedding, blank FROM near
    UNION ALL
    SELECT "mediaId", embedding, blank FROM same WHERE "mediaId" NOT IN (SELECT "mediaId" FROM near)
)
SELECT {match_columns},
    -- <=> divides by the real norms of the stored halves. To the sixth decimal, since halves are no more precise. Equal
    -- bytes give equal vectors, so the cosine of a vector that is not made yet is known.
    coalesce(round(greatest(-1, least(1, 1 - (c.embedding <=> %(embedding)s)))::numeric, 6)::float8, 1) AS cosine,
    c.blank,
    (SELECT count(*) FROM near) AS candidates,
    (SELECT round(min(greatest(-1, least(1, 1 - (embedding <=> %(embedding)s))))::numeric, 6)::float8 FROM near) AS edge
FROM candidates c
JOIN media m ON m.id = c."mediaId"
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE p."clientId" = %(client_id)s AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
    AND (%(product_ids)s::text[] IS NULL OR p.id = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    AND NOT (%(without_blank)s AND c.blank)
ORDER BY cosine DESC, coalesce(m.id = %(media_id)s, false) DESC, coalesce(m."contentDigest" = %(digest)s, false) DESC,
    m.id
LIMIT %(limit)s

-- keep_comparison --
-- Keep a search that an index answered and that was answered again exactly.
INSERT INTO twinlens_recall (space, "clientId", embedding, "limit", "where", expected, found)
VALUES (%(space)s, %(client_id)s, %(embedding)s, %(limit)s, %(where)s, %(expected)s, %(found)s)

-- trim_comparisons --
-- Delete all but the newest comparisons of the space.
DELETE FROM twinlens_recall
WHERE space = %(space)s
    AND number <= (SELECT number FROM twinlens_recall WHERE space = %(space)s ORDER BY number DESC OFFSET %(kept)s LIMIT 1)

-- ping --
-- No rows; fails where the space was dropped.
SELECT FROM {space} LIMIT 0

-- analyse --
-- Have PostgreSQL count its rows, so that it plans by what is true.
ANALYZE products, media, {space}
