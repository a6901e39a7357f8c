-- Every statement about clients as a whole: a name, a sentence, named parameters. {space} is a space's table of vectors.

-- clients --
-- The clients that have anything, with what they have: products, media and their bytes, and keys that are good.
SELECT "clientId" AS client_id, sum(products)::bigint AS products, sum(media)::bigint AS media,
    sum(bytes)::bigint AS bytes, sum(keys)::bigint AS keys
FROM (
    SELECT "clientId", count(*) AS products, 0 AS media, 0 AS bytes, 0 AS keys FROM products GROUP BY "clientId"
    UNION ALL
    SELECT "clientId", 0, count(*), coalesce(sum(bytes), 0), 0 FROM media GROUP BY "clientId"
    UNION ALL
    SELECT "clientId", 0, 0, 0, count(*) FILTER (
        WHERE "revokedAt" IS NULL AND ("expiresAt" IS NULL OR "expiresAt" > now())
    )
    FROM twinlens_keys WHERE "clientId" IS NOT NULL GROUP BY "clientId"
    UNION ALL
    SELECT "clientId", 0, 0, 0, 0 FROM twinlens_limits
) AS one
GROUP BY "clientId"
ORDER BY "clientId"

-- spaces --
-- The numbers of the spaces.
SELECT number FROM twinlens_spaces ORDER BY number

-- vectors --
-- How many vectors each client has in the space.
SELECT "clientId" AS client_id, count(*) AS vectors FROM {space} GROUP BY "clientId"

-- close --
-- Refuse the client's keys from now on, and forget its limits; how many keys there were.
WITH limits AS (
    DELETE FROM twinlens_limits WHERE "clientId" = %(client_id)s
), allowances AS (
    DELETE FROM twinlens_rates
    WHERE subject = 'client ' || %(client_id)s
        OR subject IN (SELECT 'key ' || id FROM twinlens_keys WHERE "clientId" = %(client_id)s)
), keys AS (
    DELETE FROM twinlens_keys WHERE "clientId" = %(client_id)s RETURNING 1
)
SELECT count(*) FROM keys

-- count --
-- How many media the client has.
SELECT count(*) FROM media WHERE "clientId" = %(client_id)s

-- delete_media --
-- Delete some of the client's media, with their vectors in every space; the keys of their bytes and thumbnails.
DELETE FROM media
WHERE id IN (SELECT id FROM media WHERE "clientId" = %(client_id)s LIMIT %(most)s)
RETURNING "s3Key", "thumbnailKey"

-- delete_products --
-- Delete some of the client's products.
DELETE FROM products
WHERE id IN (
    SELECT p.id FROM products p
    WHERE p."clientId" = %(client_id)s AND NOT EXISTS (SELECT FROM media m WHERE m."productId" = p.id)
    LIMIT %(most)s
)

-- forget --
-- Forget what else is kept of the client: answers to its writes, what it declared, the words that its products had, and
-- comparisons of its searches.
WITH answers AS (
    DELETE FROM twinlens_idempotency WHERE "clientId" = %(client_id)s
), declared AS (
    DELETE FROM twinlens_attributes WHERE "clientId" = %(client_id)s
), searchable AS (
    DELETE FROM twinlens_searchable WHERE "clientId" = %(client_id)s
), words AS (
    DELETE FROM twinlens_words WHERE "clientId" = %(client_id)s
), due AS (
    DELETE FROM twinlens_words_due WHERE "clientId" = %(client_id)s
)
DELETE FROM twinlens_recall WHERE "clientId" = %(client_id)s

-- drop_index --
-- Drop the client's own index in a space without stopping searches.
DROP INDEX CONCURRENTLY IF EXISTS {index}

-- forget_indexes --
-- Forget what was measured of the client's indexes.
DELETE FROM twinlens_indexes WHERE "clientId" = %(client_id)s
