-- Every statement of server/dump: a name, a sentence, named parameters. {space} is a space's table of vectors. The columns
-- of what is dumped are in the order of server/dump/tables.py; times are microseconds since 1970.

-- product_api_id --
-- A product's id in the API, as in queries.sql.
CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END

-- media_api_id --
-- A media's id in the API, likewise.
CASE WHEN m."apiId" IS NULL THEN m.id ELSE m."apiId" END

-- spaces --
-- The embedding spaces, those that are asked for.
SELECT number, id, dimensions, model, live FROM twinlens_spaces
WHERE live OR %(every)s
ORDER BY number

-- count_products --
-- How many products there are of a client, or of all clients.
SELECT count(*) FROM products p WHERE %(client)s::text IS NULL OR p."clientId" = %(client)s::text

-- count_media --
-- How many media, likewise.
SELECT count(*) FROM media m WHERE %(client)s::text IS NULL OR m."clientId" = %(client)s::text

-- count_attributes --
-- How many attributes are declared, likewise.
SELECT count(*) FROM twinlens_attributes a WHERE %(client)s::text IS NULL OR a."clientId" = %(client)s::text

-- attributes --
-- What the attributes of a client, or of all clients, are declared as.
SELECT a."clientId", a.name, a.type
FROM twinlens_attributes a
WHERE %(client)s::text IS NULL OR a."clientId" = %(client)s::text

-- products --
-- The products of a client, or of all clients.
SELECT p."clientId", {product_api_id}, p.name, p.sku, p."isActive", p.attributes::text,
    (extract(epoch FROM p."createdAt") * 1000000)::bigint, (extract(epoch FROM p."updatedAt") * 1000000)::bigint
FROM products p
WHERE %(client)s::text IS NULL OR p."clientId" = %(client)s::text

-- media --
-- The media, likewise.
SELECT m."clientId", {media_api_id}, {product_api_id}, m.kind, m.status, m."s3Key", m."thumbnailKey", m."contentType",
    m.bytes, m.width, m.height, m."contentDigest", (extract(epoch FROM m."createdAt") * 1000000)::bigint
FROM media m
JOIN products p ON p.id = m."productId"
WHERE %(client)s::text IS NULL OR m."clientId" = %(client)s::text

-- vectors --
-- The vectors of a space, likewise, in PostgreSQL's binary form.
SELECT m."clientId", {media_api_id}, m."contentDigest", halfvec_send(v.embedding), v.blank, v.reading
FROM {space} v
JOIN media m ON m.id = v."mediaId"
WHERE %(client)s::text IS NULL OR m."clientId" = %(client)s::text

-- objects --
-- What the rows of a client, or of all clients, promise of the store; as in backup.sql.
SELECT key, max(bytes) AS bytes, min(digest) AS digest, bool_and(thumbnail) AS thumbnail
FROM (
    SELECT m."s3Key" AS key, m.bytes, encode(m."contentDigest", 'hex') AS digest, false AS thumbnail FROM media m
    WHERE %(client)s::text IS NULL OR m."clientId" = %(client)s::text
    UNION ALL
    SELECT m."thumbnailKey", NULL, NULL, true FROM media m
    WHERE m."thumbnailKey" IS NOT NULL AND (%(client)s::text IS NULL OR m."clientId" = %(client)s::text)
) AS promised
GROUP BY key
ORDER BY key

-- live_space --
-- The space that searches run in.
SELECT number, id, dimensions, model, live FROM twinlens_spaces WHERE live

-- is_empty --
-- Whether there is no product, and nothing is declared.
SELECT NOT EXISTS (SELECT FROM products) AND NOT EXISTS (SELECT FROM twinlens_attributes)

-- pause_backfill --
-- Until this session ends, no server embeds pictures that lack a vector: their vectors are on their way.
SELECT pg_advisory_lock(%(locks)s, %(number)s)

-- one_by_one --
-- Rows are looked up by their indexes, whatever the statistics say of tables that are being filled just now.
SELECT set_config(name, 'off', true) FROM unnest(array['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan']) AS name

-- given_attributes --
-- The declared attributes of a batch.
SELECT * FROM unnest(%(clientId)s::text[], %(name)s::text[], %(type)s::text[]) AS g ("clientId", name, type)

-- unlike_attributes --
-- Attributes of the batch that are declared as something else.
SELECT g."clientId" AS client_id, g.name AS id, false AS by_sku
FROM ({given_attributes}) AS g
JOIN twinlens_attributes a ON a."clientId" = g."clientId" AND a.name = g.name
WHERE a.type <> g.type

-- add_attributes --
-- Declare the attributes of the batch that are not declared; how many.
WITH added AS (
    INSERT INTO twinlens_attributes ("clientId", name, type)
    SELECT "clientId", name, type FROM ({given_attributes}) AS g ORDER BY "clientId", name
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM added

-- given_products --
-- The products of a batch.
SELECT * FROM unnest(
    %(clientId)s::text[], %(id)s::text[], %(elsewhere)s::text[], %(name)s::text[], %(sku)s::text[], %(isActive)s::boolean[],
    %(attributes)s::text[], %(createdAt)s::bigint[], %(updatedAt)s::bigint[]
) AS g ("clientId", id, elsewhere, name, sku, "isActive", attributes, "createdAt", "updatedAt")

-- unlike_products --
-- Products of the batch that are there and otherwise, or whose SKU another product has. Times are not compared.
WITH g AS MATERIALIZED ({given_products})
SELECT g."clientId" AS client_id, g.id, p.id IS NULL AS by_sku
FROM g
LEFT JOIN products p ON p."clientId" = g."clientId" AND {product_api_id} = g.id
LEFT JOIN products other ON other."clientId" = g."clientId" AND other.sku = g.sku AND p.id IS NULL
WHERE other.id IS NOT NULL
    OR p.id IS NOT NULL
        AND (p.name, p.sku, p."isActive", p.attributes) IS DISTINCT FROM (g.name, g.sku, g."isActive", g.attributes::jsonb)

-- add_products --
-- Add the products of the batch that are not there; how many. Each gets its own id, or one elsewhere, where another
-- client's row has that in the database. One whose SKU another product has is not added. A trigger sets "updatedAt".
WITH g AS MATERIALIZED (
    SELECT g.* FROM ({given_products}) AS g
    WHERE NOT EXISTS (SELECT FROM products p WHERE p."clientId" = g."clientId" AND {product_api_id} = g.id)
), plain AS (
    INSERT INTO products AS p (id, "clientId", name, sku, "isActive", attributes, "createdAt")
    SELECT id, "clientId", name, sku, "isActive", attributes::jsonb,
        timestamptz 'epoch' + "createdAt" * interval '1 microsecond'
    FROM g
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING p."clientId", p.id
), other AS (
    INSERT INTO products AS p (id, "apiId", "clientId", name, sku, "isActive", attributes, "createdAt")
    SELECT elsewhere, id, "clientId", name, sku, "isActive", attributes::jsonb,
        timestamptz 'epoch' + "createdAt" * interval '1 microsecond'
    FROM g
    WHERE NOT EXISTS (SELECT FROM plain WHERE plain."clientId" = g."clientId" AND plain.id = g.id)
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM plain) + (SELECT count(*) FROM other)

-- given_media --
-- The media of a batch.
SELECT * FROM unnest(
    %(clientId)s::text[], %(id)s::text[], %(elsewhere)s::text[], %(productId)s::text[], %(kind)s::text[], %(status)s::text[],
    %(s3Key)s::text[], %(thumbnailKey)s::text[], %(contentType)s::text[], %(bytes)s::bigint[], %(width)s::integer[],
    %(height)s::integer[], %(contentDigest)s::bytea[], %(createdAt)s::bigint[]
) AS g (
    "clientId", id, elsewhere, "productId", kind, status, "s3Key", "thumbnailKey", "contentType", bytes, width, height,
    "contentDigest", "createdAt"
)

-- unlike_media --
-- Media of the batch that are there and of another product or picture. What servers may have filled in since, or
-- changed by working on it, is not compared.
WITH g AS MATERIALIZED ({given_media})
SELECT g."clientId" AS client_id, g.id, false AS by_sku
FROM g
JOIN media m ON m."clientId" = g."clientId" AND {media_api_id} = g.id
JOIN products p ON p.id = m."productId"
WHERE ({product_api_id}, m.kind, m."s3Key") IS DISTINCT FROM (g."productId", g.kind, g."s3Key")
    OR m."contentDigest" <> g."contentDigest"

-- add_media --
-- Add the media of the batch that are not there, and whose product has no other media of the same bytes; how many. With
-- ids as add_products has them.
WITH g AS MATERIALIZED (
    SELECT g.*, p.id AS product
    FROM ({given_media}) AS g
    JOIN products p ON p."clientId" = g."clientId" AND {product_api_id} = g."productId"
    WHERE NOT EXISTS (SELECT FROM media m WHERE m."clientId" = g."clientId" AND {media_api_id} = g.id)
), plain AS (
    INSERT INTO media AS m (id, "productId", "clientId", kind, status, "s3Key", "thumbnailKey", "contentType", bytes,
        width, height, "contentDigest", "createdAt")
    SELECT id, product, "clientId", kind, status, "s3Key", "thumbnailKey", "contentType", bytes, width, height,
        "contentDigest", timestamptz 'epoch' + "createdAt" * interval '1 microsecond'
    FROM g
    ORDER BY product, id
    ON CONFLICT DO NOTHING
    RETURNING m."clientId", m.id
), other AS (
    INSERT INTO media AS m (id, "apiId", "productId", "clientId", kind, status, "s3Key", "thumbnailKey", "contentType",
        bytes, width, height, "contentDigest", "createdAt")
    SELECT elsewhere, id, product, "clientId", kind, status, "s3Key", "thumbnailKey", "contentType", bytes, width,
        height, "contentDigest", timestamptz 'epoch' + "createdAt" * interval '1 microsecond'
    FROM g
    WHERE NOT EXISTS (SELECT FROM plain WHERE plain."clientId" = g."clientId" AND plain.id = g.id)
    ORDER BY product, id
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM plain) + (SELECT count(*) FROM other)

-- known_media --
-- Of the media of the batch: how many are there, and how many are not, but another media of the product with the same
-- bytes is.
WITH g AS MATERIALIZED ({given_media})
SELECT count(*) FILTER (WHERE m.id IS NOT NULL) AS there, count(*) FILTER (WHERE m.id IS NULL AND twin.id IS NOT NULL) AS twins
FROM g
LEFT JOIN media m ON m."clientId" = g."clientId" AND {media_api_id} = g.id
LEFT JOIN products p ON p."clientId" = g."clientId" AND {product_api_id} = g."productId" AND m.id IS NULL
LEFT JOIN media twin ON twin."productId" = p.id AND twin."contentDigest" = g."contentDigest"

-- add_vectors --
-- Store the vectors of the batch whose media are there, with the picture that they were made of, and have none; how many.
WITH g AS MATERIALIZED (
    SELECT * FROM unnest(
        %(clientId)s::text[], %(mediaId)s::text[], %(contentDigest)s::bytea[], %(embedding)b::halfvec[], %(blank)s::boolean[],
        %(reading)s::smallint[]
    ) AS g ("clientId", id, "contentDigest", embedding, blank, reading)
), added AS (
    INSERT INTO {space} (space, "mediaId", embedding, blank, reading)
    SELECT %(number)s, m.id, g.embedding, g.blank, g.reading
    FROM g
    JOIN media m ON m."clientId" = g."clientId" AND {media_api_id} = g.id
    WHERE coalesce(m."contentDigest" = g."contentDigest", true)
    ORDER BY m."productId", m.id
    ON CONFLICT ("mediaId") DO NOTHING
    RETURNING "mediaId"
), forgotten AS (
    DELETE FROM twinlens_unreadable u USING added WHERE u.space = %(number)s AND u."mediaId" = added."mediaId"
)
SELECT count(*) FROM added

-- analyse --
-- Have PostgreSQL count its rows, so that it plans by what is true.
ANALYZE products, media

-- analyse_vectors --
-- The same for a space.
ANALYZE {space}
