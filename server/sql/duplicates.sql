-- Every statement of duplicates.py: a name, a sentence, named parameters. {space} is the live space's table of vectors.

-- live_space --
-- The space that is searched, with the manifest of its artifact.
SELECT number, id, dimensions, manifest FROM twinlens_spaces WHERE live

-- count_media --
-- How many pictures the client has, how many of them have a vector, and how many of these are blank.
SELECT count(*) AS media, count(v."mediaId") AS embedded, count(*) FILTER (WHERE v.blank) AS blank
FROM media m
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
LEFT JOIN {space} v ON v."mediaId" = m.id
WHERE m."clientId" = %(client_id)s AND m.status = 'ready' AND m.kind = 'image' AND (p."isActive" OR %(all)s)

-- same_files --
-- Of each file that the client has more than once, the media: also those that have no vector yet, but no blank ones.
WITH ours AS MATERIALIZED (
    SELECT m.id, m."contentDigest" AS digest
    FROM media m
    JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
    WHERE m."clientId" = %(client_id)s AND m.status = 'ready' AND m.kind = 'image' AND (p."isActive" OR %(all)s)
        AND m."contentDigest" IS NOT NULL
        AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id AND v.blank)
)
SELECT array_agg(id ORDER BY id) AS ids FROM ours GROUP BY digest HAVING count(*) > 1 ORDER BY min(id)

-- vectors --
-- Every vector of the client but those of blank pictures, by the media's id.
SELECT v."mediaId" AS media_id, v.embedding
FROM {space} v
JOIN media m ON m.id = v."mediaId"
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE v."clientId" = %(client_id)s AND m.status = 'ready' AND m.kind = 'image' AND (p."isActive" OR %(all)s)
    AND NOT v.blank
ORDER BY v."mediaId"

-- describe --
-- What these media are, and of which products. `key` is the media's id in the database; the others are the API's.
SELECT m.id AS key, coalesce(m."apiId", m.id) AS media_id, coalesce(p."apiId", p.id) AS product_id, p.name AS product_name, p."isActive" AS is_active, m."s3Key" AS s3_key,
    encode(m."contentDigest", 'hex') AS digest
FROM media m
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND m.id = ANY(%(ids)s)
