-- Every statement of feed_writer.py: a name, a sentence, named parameters. {space} is the space's table of vectors. Each
-- takes many rows at once, a column an array, since COPY is refused beneath row-level security.

-- product_api_id --
-- A product's id in the API, as in queries.sql.
CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END

-- live --
-- Whether the space is the live one.
SELECT live FROM twinlens_spaces WHERE number = %(space)s

-- brief_locks --
-- Less than deadlock_timeout: when a batch and another transaction wait for each other, it is the batch that gives up.
SET LOCAL lock_timeout = '500ms'

-- known_products --
-- What the catalogue knows of these products: the id in the database, whether it has these facts already, and whether the
-- feed has brought it. A fact that is not given is whatever it is. Only those that are there.
SELECT {product_api_id} AS id, p.id AS key,
    p.name = coalesce(g.name, p.name) AND p.sku IS NOT DISTINCT FROM coalesce(g.sku, p.sku)
        AND p."isActive" = coalesce(g."isActive", p."isActive") AND p.attributes = coalesce(g.attributes, p.attributes)
        AS same,
    EXISTS (
        SELECT FROM twinlens_feed_rows f WHERE f."productId" = p.id AND f.feed = %(feed)s AND f.place = 0
    ) AS brought
FROM unnest(
    %(ids)s::text[], %(names)s::text[], %(skus)s::text[], %(is_active)s::boolean[], %(attributes)s::jsonb[]
) AS g(id, name, sku, "isActive", attributes)
JOIN products p ON p."clientId" = %(client_id)s AND {product_api_id} = g.id

-- known_pictures --
-- The pictures that the feed's rows of these products have brought so far, each by its product and place: where it was
-- read, its digest, and whether it has a vector in the space.
SELECT f."productId" AS product_key, f.place, f."mediaId" AS media_key, f.source, f.size, f.stamp,
    m."contentDigest" AS digest, v."mediaId" IS NOT NULL AS embedded
FROM unnest(%(keys)s::text[], %(places)s::integer[]) AS g(key, place)
JOIN twinlens_feed_rows f ON f."productId" = g.key AND f.feed = %(feed)s AND f.place = g.place AND f.named
JOIN media m ON m.id = f."mediaId"
LEFT JOIN {space} v ON v."mediaId" = m.id
WHERE f."clientId" = %(client_id)s

-- same_files --
-- Those of these files that the product has already, with the media's id in the database.
SELECT m."productId" AS product_key, m."contentDigest" AS digest, m.id AS media_key,
    EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id) AS embedded
FROM unnest(%(keys)s::text[], %(digests)s::bytea[]) AS g(key, digest)
JOIN media m ON m."productId" = g.key AND m."contentDigest" = g.digest
WHERE m."clientId" = %(client_id)s

-- put_products --
-- Change the client's products where they are otherwise, and make those that lack and may be made: under their own ids,
-- or elsewhere, where another client has one of that id in the database. A fact that is not given stays as it is. Gives
-- the ids of those that were made.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::text[], %(elsewhere)s::text[], %(names)s::text[], %(skus)s::text[], %(is_active)s::boolean[],
        %(attributes)s::jsonb[], %(may_make)s::boolean[]
    ) AS g(id, elsewhere, name, sku, "isActive", attributes, may_make)
), here AS MATERIALIZED (
    SELECT g.id, p.id AS key FROM given g JOIN products p ON p."clientId" = %(client_id)s AND {product_api_id} = g.id
), changed AS (
    UPDATE products p
    SET name = coalesce(g.name, p.name), sku = coalesce(g.sku, p.sku),
        "isActive" = coalesce(g."isActive", p."isActive"), attributes = coalesce(g.attributes, p.attributes),
        "updatedAt" = now()
    FROM given g JOIN here ON here.id = g.id
    WHERE p.id = here.key AND p."clientId" = %(client_id)s
        AND (p.name, p.sku, p."isActive", p.attributes) IS DISTINCT FROM (
            coalesce(g.name, p.name), coalesce(g.sku, p.sku), coalesce(g."isActive", p."isActive"),
            coalesce(g.attributes, p.attributes)
        )
), plain AS (
    INSERT INTO products AS p (id, "apiId", "clientId", name, sku, "isActive", attributes)
    SELECT g.id, NULL, %(client_id)s, coalesce(g.name, g.id), g.sku, coalesce(g."isActive", true),
        coalesce(g.attributes, '{{}}')
    FROM given g
    WHERE g.may_make AND NOT EXISTS (SELECT FROM here WHERE here.id = g.id)
    ORDER BY g.id
    ON CONFLICT (id) DO NOTHING
    RETURNING p.id
), other AS (
    INSERT INTO products AS p (id, "apiId", "clientId", name, sku, "isActive", attributes)
    SELECT g.elsewhere, g.id, %(client_id)s, coalesce(g.name, g.id), g.sku, coalesce(g."isActive", true),
        coalesce(g.attributes, '{{}}')
    FROM given g
    WHERE g.may_make AND NOT EXISTS (SELECT FROM here WHERE here.id = g.id)
        AND NOT EXISTS (SELECT FROM plain WHERE plain.id = g.id)
    ORDER BY g.id
    ON CONFLICT ("clientId", (CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END)) DO NOTHING
    RETURNING p."apiId" AS id
)
SELECT id FROM plain UNION ALL SELECT id FROM other

-- lock_products --
-- Keep these products from being deleted or switched off until their pictures are stored; their ids in the API and in the
-- database.
SELECT {product_api_id} AS id, p.id AS key
FROM products p
WHERE p."clientId" = %(client_id)s AND {product_api_id} = ANY (%(ids)s::text[])
ORDER BY p.id
FOR SHARE

-- hold --
-- Keep the objects of these uploads from being swept away until the transaction ends.
SELECT pg_advisory_xact_lock_shared(%(locks)s, lock)
FROM (SELECT DISTINCT hashtext(id) AS lock FROM unnest(%(ids)s::text[]) AS id ORDER BY 1) AS locks

-- add_media --
-- Add media; none where the product has one of the same bytes, or where its objects were swept away.
INSERT INTO media (id, "productId", "clientId", "s3Key", "thumbnailKey", "contentType", bytes, width, height,
    "contentDigest")
SELECT g.id, g.product, %(client_id)s, g.s3, g.thumbnail, g.type, g.bytes, g.width, g.height, g.digest
FROM unnest(
    %(ids)s::text[], %(product_keys)s::text[], %(s3_keys)s::text[], %(thumbnail_keys)s::text[], %(types)s::text[],
    %(bytes)s::bigint[], %(widths)s::integer[], %(heights)s::integer[], %(digests)s::bytea[]
) AS g(id, product, s3, thumbnail, type, bytes, width, height, digest)
WHERE NOT EXISTS (SELECT FROM twinlens_swept s WHERE s."mediaId" = g.id)
ORDER BY g.product, g.digest
ON CONFLICT DO NOTHING

-- add_vectors --
-- Store the vectors of media in the space, unless they have one.
INSERT INTO {space} (space, "mediaId", embedding, blank, reading)
SELECT %(space)s, g.key, g.embedding, g.blank, %(reading)s
FROM unnest(%(keys)s::text[], %(embeddings)b::halfvec[], %(blank)s::boolean[]) AS g(key, embedding, blank)
ORDER BY g.key
ON CONFLICT ("mediaId") DO NOTHING

-- bring_products --
-- Note that the feed has brought these products; `made`: whether it made them.
INSERT INTO twinlens_feed_rows (feed, "clientId", "productId", place, made)
SELECT %(feed)s, %(client_id)s, g.key, 0, g.made
FROM unnest(%(keys)s::text[], %(made)s::boolean[]) AS g(key, made)
ON CONFLICT DO NOTHING

-- leave_pictures --
-- Of what the feed's rows have brought so far, leave what is another picture than now.
UPDATE twinlens_feed_rows f SET named = false
FROM unnest(%(keys)s::text[], %(places)s::integer[], %(media)s::text[]) AS g(key, place, media)
WHERE f."productId" = g.key AND f.feed = %(feed)s AND f.place = g.place AND f.named AND f."mediaId" <> g.media
    AND f."clientId" = %(client_id)s

-- bring_pictures --
-- Note which pictures the feed's rows have brought. One that another row of the feed made counts as made by this one.
INSERT INTO twinlens_feed_rows AS f (feed, "clientId", "productId", place, "mediaId", made, source, size, stamp)
SELECT %(feed)s, %(client_id)s, g.key, g.place, g.media,
    g.made OR EXISTS (
        SELECT FROM twinlens_feed_rows o WHERE o."mediaId" = g.media AND o.feed = %(feed)s AND o.made
    ),
    g.source, g.size, g.stamp
FROM unnest(
    %(keys)s::text[], %(places)s::integer[], %(media)s::text[], %(made)s::boolean[], %(sources)s::text[],
    %(sizes)s::bigint[], %(stamps)s::text[]
) AS g(key, place, media, made, source, size, stamp)
ON CONFLICT ("productId", feed, place, "mediaId") DO UPDATE
    SET named = true, made = f.made OR excluded.made, source = excluded.source, size = excluded.size,
        stamp = excluded.stamp

-- forget_left --
-- Forget what rows have left, and another row still names, or the feed did not make.
DELETE FROM twinlens_feed_rows f
WHERE f.feed = %(feed)s AND NOT f.named AND (
    NOT f.made
    OR EXISTS (
        SELECT FROM twinlens_feed_rows o WHERE o."mediaId" = f."mediaId" AND o.feed = f.feed AND o.named AND o.made
    )
)

-- left --
-- Media that rows of the feed made and have left, and that no row of any feed names: at most so many, with their clients.
SELECT DISTINCT f."clientId" AS client_id, f."mediaId" AS key
FROM twinlens_feed_rows f
WHERE f.feed = %(feed)s AND NOT f.named AND f.made
    AND NOT EXISTS (SELECT FROM twinlens_feed_rows o WHERE o."mediaId" = f."mediaId" AND o.named)
LIMIT %(most)s

-- remove_media --
-- Delete these media of the client, and give the keys of their bytes. Not one that a feed has come to name meanwhile.
DELETE FROM media m
WHERE m."clientId" = %(client_id)s AND m.id = ANY (%(keys)s::text[])
    AND NOT EXISTS (SELECT FROM twinlens_feed_rows o WHERE o."mediaId" = m.id AND o.named)
RETURNING m."s3Key" AS s3_key, m."thumbnailKey" AS thumbnail_key

-- brought --
-- What the feed has brought and made, page by page: products and places, in order.
SELECT f."clientId" AS client_id, f."productId" AS key, {product_api_id} AS id, f.place, f."mediaId" AS media_key, f.made
FROM twinlens_feed_rows f
JOIN products p ON p.id = f."productId"
WHERE f.feed = %(feed)s AND f.named
    AND (f."clientId", f."productId", f.place) > (%(client_id)s, %(key)s, %(place)s)
ORDER BY f."clientId", f."productId", f.place
LIMIT %(most)s

-- leave --
-- Leave these pictures: their rows have left the feed.
UPDATE twinlens_feed_rows f SET named = false
FROM unnest(%(keys)s::text[], %(places)s::integer[]) AS g(key, place)
WHERE f."productId" = g.key AND f.feed = %(feed)s AND f.place = g.place AND f.place > 0

-- lock_for_removal --
-- Those of these products that may go, since they have no picture: held until the transaction ends.
SELECT p.id FROM products p
WHERE p."clientId" = %(client_id)s AND p.id = ANY (%(keys)s::text[])
    AND NOT EXISTS (SELECT FROM media m WHERE m."productId" = p.id)
    AND NOT EXISTS (
        SELECT FROM twinlens_feed_rows o WHERE o."productId" = p.id AND o.feed <> %(feed)s AND o.place = 0
    )
ORDER BY p.id
FOR UPDATE

-- remove_products --
-- Delete those of these products that have no picture, also none that was added until they were held; how many.
WITH gone AS (
    DELETE FROM products p
    WHERE p."clientId" = %(client_id)s AND p.id = ANY (%(keys)s::text[])
        AND NOT EXISTS (SELECT FROM media m WHERE m."productId" = p.id)
    RETURNING 1
)
SELECT count(*) FROM gone

-- forget_products --
-- The feed no longer has anything to do with these products.
DELETE FROM twinlens_feed_rows f
WHERE f.feed = %(feed)s AND f."clientId" = %(client_id)s AND f."productId" = ANY (%(keys)s::text[]) AND f.place = 0
