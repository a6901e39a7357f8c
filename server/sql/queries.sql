-- Every statement of catalogue.py and search.py: a name, a sentence, named parameters. {space} is the space's table of
-- vectors. The columns carry the names of the fields of the records that they become.

-- product_api_id --
-- A product's id in the API, which is unique within its client; as the index has it (0011_unique_ids.sql says why).
CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END

-- media_api_id --
-- A media's id in the API, likewise.
CASE WHEN m."apiId" IS NULL THEN m.id ELSE m."apiId" END

-- product_columns --
-- The fields of a Product.
{product_api_id} AS id, p."clientId" AS client_id, p.name, p.sku, p."isActive" AS is_active, p.attributes,
    p."createdAt" AS created_at, p."updatedAt" AS updated_at

-- media_columns --
-- The fields of a Media.
{media_api_id} AS id, (SELECT {product_api_id} FROM products p WHERE p.id = m."productId") AS product_id,
    m."clientId" AS client_id, m.kind, m.status, m."s3Key" AS s3_key, m."thumbnailKey" AS thumbnail_key,
    m."contentType" AS content_type, m.bytes, m.width, m.height, m."contentDigest" AS content_digest,
    m."createdAt" AS created_at,
    coalesce((SELECT v.blank FROM {space} v WHERE v."mediaId" = m.id), false) AS blank

-- match_columns --
-- The fields of a Match, but for its cosine and whether it is blank.
{product_api_id} AS product_id, p.name AS product_name, {media_api_id} AS media_id, m."s3Key" AS s3_key, m.width,
    m.height

-- card_columns --
-- What a match shows of its product besides. Attributes may be large: they are read where some are shown, and the shortest
-- come first, as far as all of them together take no more than so many bytes.
p.sku, p."isActive" AS is_active, CASE WHEN %(shows_url)s THEN left(p.attributes ->> 'url', %(longest_url)s) END AS url,
    CASE WHEN %(shows)s::text[] IS NOT NULL THEN (
        SELECT coalesce(jsonb_object_agg(shown.key, shown.value), '{{}}')
        FROM (
            SELECT a.key, a.value, sum(octet_length(a.key) + octet_length(a.value::text))
                OVER (ORDER BY octet_length(a.value::text), a.key COLLATE "C") AS bytes
            FROM jsonb_each(p.attributes) a
            WHERE %(shows_all)s OR a.key = ANY (%(shows)s::text[])
        ) shown
        WHERE shown.bytes <= %(most_bytes)s
    ) END AS attributes

-- put_product --
-- Change the client's product, or create it: under its own id, or elsewhere, where another client's has that id in the
-- database. No row when it was created or deleted at the same moment, or is not as the caller expects: of one of the
-- versions, where any are given; there, or not there, where that is asked for.
--
-- Whether another client has the id must not show in the time that this takes. So a new product is always inserted
-- twice: once with success, and once in vain after a look into one index. Neither locks or reads the row that is in the
-- way, which row-level security may hide.
WITH changed AS (
    UPDATE products p
    SET name = %(name)s, sku = %(sku)s, "isActive" = %(is_active)s, attributes = %(attributes)s
    WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s AND NOT %(absent)s
        AND (%(versions)s::timestamptz[] IS NULL OR p."updatedAt" = ANY (%(versions)s::timestamptz[]))
    RETURNING {product_columns}, false AS created
), plain AS (
    INSERT INTO products AS p (id, "apiId", "clientId", name, sku, "isActive", attributes)
    SELECT %(id)s, NULL, %(client_id)s, %(name)s, %(sku)s, %(is_active)s, %(attributes)s
    WHERE NOT EXISTS (SELECT FROM changed) AND NOT %(present)s
    ON CONFLICT (id) DO NOTHING
    RETURNING {product_columns}, true AS created
), other AS (
    INSERT INTO products AS p (id, "apiId", "clientId", name, sku, "isActive", attributes)
    SELECT CASE WHEN there.plain THEN %(id)s ELSE %(elsewhere)s END, CASE WHEN NOT there.plain THEN %(id)s END,
        %(client_id)s, %(name)s, %(sku)s, %(is_active)s, %(attributes)s
    FROM (SELECT EXISTS (SELECT FROM plain) AS plain) AS there
    WHERE NOT EXISTS (SELECT FROM changed) AND NOT %(present)s
    ON CONFLICT ("clientId", (CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END)) DO NOTHING
    RETURNING {product_columns}, true AS created
)
SELECT * FROM changed UNION ALL SELECT * FROM plain UNION ALL SELECT * FROM other

-- patch_product --
-- Change some of the client's product, where it is of one of the versions, if any are given. What is NULL stays; the sku
-- is set where it is `given_sku`; of the attributes all or some go, and others come.
UPDATE products p
SET name = coalesce(%(name)s, p.name),
    sku = CASE WHEN %(given_sku)s THEN %(sku)s ELSE p.sku END,
    "isActive" = coalesce(%(is_active)s, p."isActive"),
    attributes = (CASE WHEN %(no_attributes)s THEN '{{}}' ELSE p.attributes - %(removed)s::text[] END) || %(attributes)s
WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s
    AND (%(versions)s::timestamptz[] IS NULL OR p."updatedAt" = ANY (%(versions)s::timestamptz[]))
RETURNING {product_columns}

-- get_product --
-- One product of the client.
SELECT {product_columns}
FROM products p
WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s

-- products_as_made --
-- Those of these products of the client that have no attributes, and that nobody has changed since they were made: a
-- product is changed for the first time by the statement that makes it.
SELECT {product_columns}
FROM products p
WHERE p."clientId" = %(client_id)s AND {product_api_id} = ANY (%(ids)s::text[]) AND p.attributes = '{{}}'
    AND p."updatedAt" < p."createdAt" + interval '1 second'

-- lock_product_for_delete --
-- Keep media from being added to a product that is about to be deleted; gives it, and its id in the database.
SELECT {product_columns}, p.id AS key FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s FOR UPDATE

-- delete_product_media --
-- Delete a product's media and give the keys of their bytes.
DELETE FROM media m
WHERE m."productId" = %(key)s AND m."clientId" = %(client_id)s
RETURNING m."s3Key" AS s3_key, m."thumbnailKey" AS thumbnail_key

-- delete_product --
-- Delete a product of the client.
DELETE FROM products p WHERE p.id = %(key)s AND p."clientId" = %(client_id)s

-- batch_turn --
-- Until the transaction ends, be the only one with a batch of this client's.
SELECT pg_advisory_xact_lock(%(locks)s, hashtext(%(client_id)s))

-- batch_lock_product --
-- As lock_product_for_delete, for statements that are sent without waiting for what it gives.
SELECT p.id FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s FOR UPDATE

-- batch_delete_media --
-- As delete_product_media, by the product's id in the API.
DELETE FROM media m
WHERE m."clientId" = %(client_id)s AND m."productId" = (
    SELECT p.id FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s
)
RETURNING m."s3Key" AS s3_key, m."thumbnailKey" AS thumbnail_key

-- batch_delete_product --
-- As delete_product, likewise.
DELETE FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(id)s

-- lock_product --
-- Keep a product from being deleted or switched off until a media and its vector are both stored; and, before that, keep
-- the media's objects from being swept away. Gives the product's id in the database.
SELECT p.id, pg_advisory_xact_lock_shared(%(locks)s, hashtext(%(upload)s))
FROM products p
WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(product_id)s
FOR SHARE

-- add_media --
-- Add a media, as put_product adds a product, with its id in the database. No row when the product has a media of the
-- same bytes already, when the client has one of this id, or when its objects were swept away.
WITH plain AS (
    INSERT INTO media AS m (id, "apiId", "productId", "clientId", kind, "s3Key", "thumbnailKey", "contentType", bytes,
        width, height, "contentDigest")
    SELECT %(id)s, NULL, %(product_key)s, %(client_id)s, %(kind)s, %(s3_key)s, %(thumbnail_key)s, %(content_type)s,
        %(bytes)s, %(width)s, %(height)s, %(content_digest)s
    WHERE NOT EXISTS (SELECT FROM twinlens_swept WHERE "mediaId" = %(upload)s)
    ON CONFLICT DO NOTHING
    RETURNING {media_columns}, m.id AS key
), other AS (
    INSERT INTO media AS m (id, "apiId", "productId", "clientId", kind, "s3Key", "thumbnailKey", "contentType", bytes,
        width, height, "contentDigest")
    SELECT CASE WHEN there.plain THEN %(id)s ELSE %(elsewhere)s END, CASE WHEN NOT there.plain THEN %(id)s END,
        %(product_key)s, %(client_id)s, %(kind)s, %(s3_key)s, %(thumbnail_key)s, %(content_type)s, %(bytes)s,
        %(width)s, %(height)s, %(content_digest)s
    FROM (SELECT EXISTS (SELECT FROM plain) AS plain) AS there
    WHERE NOT EXISTS (SELECT FROM twinlens_swept WHERE "mediaId" = %(upload)s)
    ON CONFLICT DO NOTHING
    RETURNING {media_columns}, m.id AS key
)
SELECT * FROM plain UNION ALL SELECT * FROM other

-- was_swept --
-- Whether the upload's objects were swept away before the media got its row.
SELECT FROM twinlens_swept WHERE "mediaId" = %(upload)s

-- has_media --
-- Whether the client has a media of this id.
SELECT FROM media m WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(id)s

-- add_vector --
-- Store a media's vector in the space, unless it has one.
INSERT INTO {space} (space, "mediaId", embedding, blank, reading)
VALUES (%(space)s, %(key)s, %(embedding)s, %(blank)s, %(reading)s)
ON CONFLICT ("mediaId") DO NOTHING

-- hold_upload --
-- Until the transaction ends, keep the objects of an upload from being swept away.
SELECT pg_advisory_xact_lock_shared(%(locks)s, hashtext(%(upload)s))

-- find_there --
-- A media of the client as it is: its ids in the database, and what its bytes are.
SELECT m.id AS key, m."productId" AS product_key, m."s3Key" AS s3_key, m."thumbnailKey" AS thumbnail_key,
    m."contentDigest" AS digest
FROM media m
WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(id)s

-- lock_there --
-- The same, until the transaction ends as it is now.
SELECT m.id AS key, m."productId" AS product_key, m."s3Key" AS s3_key, m."thumbnailKey" AS thumbnail_key,
    m."contentDigest" AS digest
FROM media m
WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(id)s
FOR UPDATE

-- lock_products --
-- Keep everybody else from adding pictures or vectors to the product that is named, and to the one with this id in the
-- database; gives their ids there.
SELECT p.id FROM products p
WHERE p."clientId" = %(client_id)s AND p.id IN (
    SELECT p.id FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(product_id)s
    UNION ALL
    SELECT %(product_key)s::text
)
ORDER BY p.id
FOR NO KEY UPDATE OF p

-- find_product --
-- A product's id in the database.
SELECT p.id FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(product_id)s

-- same_in_product --
-- A row where another media of the product has these bytes.
SELECT FROM media m
WHERE m."clientId" = %(client_id)s AND m."productId" = %(product_key)s AND m."contentDigest" = %(content_digest)s
    AND m.id IS DISTINCT FROM %(key)s::text

-- replace_media --
-- Give a media another picture, and the product. To spaces it is as a new one.
UPDATE media m
SET "productId" = %(product_key)s, kind = %(kind)s, status = 'ready', "s3Key" = %(s3_key)s,
    "thumbnailKey" = %(thumbnail_key)s, "contentType" = %(content_type)s, bytes = %(bytes)s, width = %(width)s,
    height = %(height)s, "contentDigest" = %(content_digest)s, revision = pg_current_xact_id()
WHERE m.id = %(key)s AND m."clientId" = %(client_id)s
RETURNING {media_columns}, m.id AS key

-- move_media --
-- Have a media belong to another product.
UPDATE media m SET "productId" = %(product_key)s
WHERE m.id = %(key)s AND m."clientId" = %(client_id)s
RETURNING {media_columns}, m.id AS key

-- find_media_by_digest --
-- The media of a product that has these bytes, with its id in the database.
SELECT {media_columns}, m.id AS key
FROM media m
WHERE m."clientId" = %(client_id)s AND m."contentDigest" = %(digest)s
    AND m."productId" = (
        SELECT p.id FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(product_id)s
    )

-- get_media --
-- One media of the client.
SELECT {media_columns}
FROM media m
WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(id)s

-- delete_media --
-- Delete a media of the client and give what it was.
DELETE FROM media m
WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(id)s
RETURNING {media_columns}

-- media_vector --
-- A media's vector in the space, as it is stored, and whether the picture is blank.
SELECT v.embedding, v.blank
FROM media m
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(media_id)s

-- media_found --
-- A row where a search of the client's with this filter could find the media.
SELECT
FROM media m
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(media_id)s
    AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
    AND (%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)

-- same_files --
-- The client's other active media with the very bytes of this one. Equal bytes give equal vectors: the cosine is 1.
WITH this AS (
    SELECT m.id, m."contentDigest" FROM media m WHERE m."clientId" = %(client_id)s AND {media_api_id} = %(media_id)s
)
SELECT {match_columns}, 1::float8 AS cosine, 1::float8 AS ranking,
    coalesce((SELECT v.blank FROM {space} v WHERE v."mediaId" = m.id), false) AS blank
FROM this
JOIN media m ON m."contentDigest" = this."contentDigest" AND m.id <> this.id
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND p."isActive" AND m.status = 'ready' AND m.kind = 'image'
ORDER BY {media_api_id}
LIMIT %(limit)s

-- digests --
-- Which files the client has with a vector in the space, and under which product.
SELECT {product_api_id} AS product_id, m."contentDigest" AS digest
FROM media m
JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
JOIN {space} v ON v."mediaId" = m.id
WHERE m."clientId" = %(client_id)s AND m."contentDigest" IS NOT NULL

-- products_of_client --
-- The client's products, for a filter.
(SELECT * FROM products WHERE "clientId" = %(client_id)s)

-- products_under_policy --
-- The same where row-level security is in force. The view finds the client in the transaction's setting.
twinlens_client_products

-- micro --
-- The cosine of a vector v with the one that is searched for, in millionths: halves are no more precise. <=> divides by
-- the real norms of the stored halves.
round(greatest(-1, least(1, 1 - (v.embedding <=> %(embedding)s))) * 1e6::float8)

-- active --
-- The vectors of the client's active media.
FROM {space} v
WHERE v."clientId" = %(client_id)s AND v.active AND NOT (%(without_blank)s AND v.blank)

-- active_where --
-- The same of media that pass the filter. It is applied first, so no media that passes is overlooked. Its products are
-- one of the two above. A media has the client of its product, so that need not be compared.
FROM {products} p
JOIN media m ON m."productId" = p.id
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId" AND v.active
WHERE m."clientId" = %(client_id)s
    AND (%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    AND NOT (%(without_blank)s AND v.blank)

-- of_any_state --
-- The same where products that are not active pass, too. A vector's own mark says whether product and media are active
-- together, so the media is asked here what it is.
FROM {products} p
JOIN media m ON m."productId" = p.id
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND m.status = 'ready' AND m.kind = 'image'
    AND (%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    AND NOT (%(without_blank)s AND v.blank)

-- near_exactly --
-- The nearest of one of the three above, or those with the highest rank, by comparing with each one, from a rank on. Which
-- of equals come is left open: the caller sees that the last ones are equal.
SELECT v."mediaId", v.embedding, v.blank
{among}
    AND (%(upto)s::float8 IS NULL OR {rank} <= %(upto)s::float8)
    AND (%(least)s::float8 IS NULL OR {micro} >= round(%(least)s::float8 * 1e6::float8))
ORDER BY {order}
LIMIT %(candidates)s

-- level_exactly --
-- So many of them with a rank below that of the last match of the page before, all others of the same rank as the last
-- of these, and all of the rank of that match: whatever the order among equals is, none is missing. Each vector is
-- compared twice, since PostgreSQL would sort all of them for LIMIT ... WITH TIES.
SELECT v."mediaId", v.embedding, v.blank
{among}
    AND (%(upto)s::float8 IS NULL OR {rank} <= %(upto)s::float8)
    AND (%(least)s::float8 IS NULL OR {micro} >= round(%(least)s::float8 * 1e6::float8))
    AND {rank} >= coalesce((
        SELECT min(rank) FROM (
            SELECT {rank} AS rank
            {among}
                AND (%(upto)s::float8 IS NULL OR {rank} < %(upto)s::float8)
                AND (%(least)s::float8 IS NULL OR {micro} >= round(%(least)s::float8 * 1e6::float8))
            ORDER BY 1 DESC
            LIMIT %(candidates)s
        ) AS best
    ), '-infinity')

-- near_by_index --
-- The nearest through the client's own HNSW index. PostgreSQL uses the index because these conditions on the client and
-- on active are those of the index itself. A filter is applied afterwards to these candidates, and may leave too few.
SELECT "mediaId", embedding, blank
FROM {space}
WHERE "clientId" = %(client_id)s AND active
ORDER BY embedding <#> %(embedding)s
LIMIT %(candidates)s

-- named --
-- Media of products that have a bonus are always candidates.
UNION
SELECT v."mediaId", v.embedding, v.blank
FROM products p
JOIN media m ON m."productId" = p.id
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId"
WHERE p."clientId" = %(client_id)s AND {product_api_id} = ANY(%(named)s::text[])
    AND (p."isActive" OR %(inactive)s) AND m.status = 'ready' AND m.kind = 'image'

-- bonus --
-- What a product p has as a bonus of its own, in millionths.
coalesce((
    SELECT round(max(one.bonus) * 1e6::float8)
    FROM unnest(%(named)s::text[], %(bonuses)s::float8[]) AS one (id, bonus)
    WHERE one.id = {product_api_id}
), 0)

-- boost --
-- What the attributes of a product p add to the cosines of its media, in millionths. Numbers are reckoned with as
-- numerics, since one that is stored may be too large for a double, or too small.
(
    SELECT coalesce(round(sum(one.weight * one.share) * 1e6::float8), 0)
    FROM (
        SELECT way.weight, max(CASE way.kind
            WHEN 'equals' THEN (p.attributes @@ way.path)::integer
            ELSE (
                SELECT max(round(greatest(0, least(1, (
                    CASE way.kind
                        WHEN 'date' THEN extract(epoch FROM (found.value #>> '{{}}')::timestamptz)
                        ELSE (found.value #>> '{{}}')::numeric
                    END - way.low) / (way.high - way.low))), 9))::float8
                FROM jsonb_path_query(p.attributes, way.path, '{{}}', true) AS found (value)
            )
        END) AS share
        FROM unnest(%(boost_numbers)s::integer[], %(boost_weights)s::float8[], %(boost_kinds)s::text[],
            %(boost_paths)s::jsonpath[], %(boost_lows)s::numeric[], %(boost_highs)s::numeric[])
            AS way (number, weight, kind, path, low, high)
        GROUP BY way.number, way.weight
    ) AS one
)

-- boosted_edge --
-- The rank of a candidate v of an exact search with boosts.
{micro} + (SELECT {boost} FROM media m JOIN products p ON p.id = m."productId" WHERE m.id = v."mediaId"
    AND m."clientId" = %(client_id)s)

-- ranked_columns --
-- What a media m of a product p with a vector v is as a match, and all that its place hangs on. Of a vector that is not
-- made yet the cosine is known: equal bytes give equal vectors.
{match_columns}, {card_columns}, coalesce(v.blank, false) AS blank,
    coalesce(CASE WHEN v.embedding IS NOT NULL THEN {micro} END, 1e6) / 1e6::float8 AS cosine,
    coalesce(CASE WHEN v.embedding IS NOT NULL THEN {micro} END, 1e6) + {bonuses} AS rank,
    coalesce({media_api_id} = %(media_id)s, false) AS own_media,
    coalesce(m."contentDigest" = %(digest)s, false) AS own_file

-- passes --
-- Whether a media m of a product p with a vector v can be a match.
p."clientId" = %(client_id)s AND (p."isActive" OR %(inactive)s) AND m.status = 'ready' AND m.kind = 'image'
    AND (%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    AND NOT (%(without_blank)s AND coalesce(v.blank, false))

-- matches --
-- The candidates of one of the statements above as matches, with all that their order hangs on. Each row is of a media
-- that passes.
WITH near AS MATERIALIZED (
    {near}
), same AS MATERIALIZED (
    -- Media of the very file that is searched for are always candidates: however many others look like it, even where
    -- an index overlooks them, and even before their vectors are made. The best of them that the page can show are
    -- enough.
    SELECT same."mediaId", same.embedding, same.blank
    FROM (
        -- Of a vector that is not made yet the cosine is known: equal bytes give equal vectors.
        SELECT m.id AS "mediaId", v.embedding, coalesce(v.blank, false) AS blank,
            coalesce(CASE WHEN v.embedding IS NOT NULL THEN {micro} END, 1e6) + {bonuses} AS rank,
            coalesce({media_api_id} = %(media_id)s, false) AS own_media,
            coalesce(m."contentDigest" = %(digest)s, false) AS own_file, {media_api_id} AS media_id
        FROM media m
        JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
        LEFT JOIN {space} v ON v."mediaId" = m.id
        WHERE m."clientId" = %(client_id)s AND (m."contentDigest" = %(digest)s OR {media_api_id} = %(media_id)s)
            AND (p."isActive" OR %(inactive)s) AND m.status = 'ready' AND m.kind = 'image'
            AND (v.embedding IS NOT NULL OR m."contentDigest" = %(digest)s)
            AND (%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
            AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
            AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    ) AS same
    WHERE {after}
    -- No index has this order. A search through an index is planned with sorting switched off: for the order of m.id
    -- alone, PostgreSQL would read the index on the ids of all media from end to end.
    ORDER BY rank DESC, own_media DESC, own_file DESC, media_id
    LIMIT %(same)s
), others AS MATERIALIZED (
    SELECT "mediaId", embedding, blank FROM same
    {named}
), candidates AS (
    SELECT "mediaId", embedding, blank FROM near
    UNION ALL
    SELECT "mediaId", embedding, blank FROM others WHERE "mediaId" NOT IN (SELECT "mediaId" FROM near)
), ranked AS (
    SELECT {ranked_columns}
    FROM candidates v
    JOIN media m ON m.id = v."mediaId"
    JOIN products p ON p.id = m."productId" AND p."clientId" = m."clientId"
    WHERE {passes}
)

-- after --
-- Whether a match comes behind the last one of the page before.
(%(after_rank)s::float8 IS NULL OR (-rank, NOT own_media, NOT own_file, media_id)
    > (-%(after_rank)s::float8, NOT %(after_own_media)s::boolean, NOT %(after_own_file)s::boolean, %(after_id)s::text))

-- near_enough --
-- Whether a match has the least cosine. For what has a bonus, it may be another one.
(%(least)s::float8 IS NULL OR cosine >= %(least)s::float8 OR product_id = ANY(%(named)s::text[])
    AND (%(least_named)s::float8 IS NULL OR cosine >= %(least_named)s::float8))

-- search --
-- The best of the candidates in their one order. Each row also says how many candidates there were, and the lowest
-- rank among those that were not there for a reason of their own: no other media has a higher one. Where nothing was
-- found, one row says that alone.
{matches}
SELECT best.*, best.rank / 1e6::float8 AS ranking, of_all.candidates, of_all.edge
FROM (SELECT count(*) AS candidates, min({edge}) AS edge FROM near v) AS of_all
LEFT JOIN (
    SELECT *
    FROM ranked
    WHERE {after} AND {near_enough}
    ORDER BY rank DESC, own_media DESC, own_file DESC, media_id
    LIMIT %(rows)s
) AS best ON true
ORDER BY best.rank DESC, best.own_media DESC, best.own_file DESC, best.media_id

-- products_of_matches --
-- The products of the best of the candidates, each once, in the order of its best; otherwise as search.
{matches}
SELECT best.product_id, best.rank, of_all.candidates, of_all.edge
FROM (SELECT count(*) AS candidates, min({edge}) AS edge FROM near v) AS of_all
LEFT JOIN (
    SELECT *
    FROM (
        -- No index has this order: for that of the product's id alone, with sorting switched off, PostgreSQL would read all
        -- products of the client.
        SELECT DISTINCT ON (product_id || '') product_id, rank, own_media, own_file, media_id
        FROM ranked
        WHERE {after} AND {near_enough}
        ORDER BY product_id || '', rank DESC, own_media DESC, own_file DESC, media_id
    ) AS each
    ORDER BY rank DESC, own_media DESC, own_file DESC, media_id
    LIMIT %(rows)s
) AS best ON true
ORDER BY best.rank DESC, best.own_media DESC, best.own_file DESC, best.media_id

-- in_products --
-- The best matches of some products, so many of each, in their one order; and whether each comes behind the last match
-- of the page before.
SELECT best.*, best.rank / 1e6::float8 AS ranking, {after} AS behind
FROM (
    SELECT each.*, row_number() OVER (
        PARTITION BY product_id ORDER BY rank DESC, own_media DESC, own_file DESC, media_id
    ) AS place
    FROM (
        SELECT {ranked_columns}
        FROM products p
        JOIN media m ON m."productId" = p.id AND m."clientId" = p."clientId"
        LEFT JOIN {space} v ON v."mediaId" = m.id
        WHERE {passes} AND {product_api_id} = ANY(%(products)s::text[])
            AND (v.embedding IS NOT NULL OR m."contentDigest" = %(digest)s)
    ) AS each
    WHERE {near_enough}
) AS best
WHERE place <= %(most)s
ORDER BY rank DESC, own_media DESC, own_file DESC, media_id

-- vectors_of --
-- The vectors of some media, of those that have one.
SELECT {media_api_id} AS media_id, v.embedding
FROM media m
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND {media_api_id} = ANY(%(media_ids)s::text[])

-- cosines_of --
-- The cosines of some media with some vectors, in the order of these; of those media that have a vector.
SELECT {media_api_id} AS media_id, (
        SELECT array_agg(
            round(greatest(-1, least(1, 1 - (v.embedding <=> part.vector))) * 1e6::float8) / 1e6::float8
            ORDER BY part.number
        )
        FROM unnest(%(vectors)s::text[]::halfvec[]) WITH ORDINALITY AS part (vector, number)
    ) AS cosines
FROM media m
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND {media_api_id} = ANY(%(media_ids)s::text[])

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
