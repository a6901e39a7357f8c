-- Every statement of server/spaces: a name, a sentence, named parameters. {space} is a space's table of vectors.
-- A media is missing in a space when it is a ready image without a vector there.

-- there_are_spaces --
-- Whether the database has the table of spaces, which the first migration makes.
SELECT to_regclass('twinlens_spaces') IS NOT NULL

-- find_space --
-- An embedding space by its id.
SELECT number, id, dimensions, model, live FROM twinlens_spaces WHERE id = %(id)s

-- find_live_space --
-- The id of the live space, if there is one.
SELECT id FROM twinlens_spaces WHERE live

-- was_live --
-- Whether the space was the live one once, and another one is now.
SELECT "retiredAt" IS NOT NULL FROM twinlens_spaces WHERE number = %(number)s

-- list_spaces --
-- All of them, in the order in which they were registered.
SELECT number, id, dimensions, model, live, "retiredAt" IS NOT NULL AS was_live, "artifactPath" AS artifact_path
FROM twinlens_spaces
ORDER BY number

-- register_space --
-- Make a space's row and its table of vectors.
SELECT twinlens_register_space(%(id)s, %(dimensions)s, %(model)s, %(manifest)s::jsonb, %(path)s)

-- make_live --
-- Make a space the one that image_embeddings shows.
SELECT twinlens_make_live(%(number)s)

-- drop_space --
-- Remove a space that is not live from the database.
SELECT twinlens_drop_space(%(number)s)

-- note_artifact --
-- Record the artifact's manifest, and the folder in which it is now.
UPDATE twinlens_spaces SET manifest = %(manifest)s::jsonb, "artifactPath" = %(path)s
WHERE number = %(number)s AND (manifest, "artifactPath") IS DISTINCT FROM (%(manifest)s::jsonb, %(path)s)

-- count_vectors --
-- How many vectors the space holds.
SELECT count(*) FROM {space}

-- horizon --
-- Every transaction below the first has ended; nothing that the second or a later one added is visible.
SELECT pg_snapshot_xmin(snapshot)::text AS complete_below, pg_snapshot_xmax(snapshot)::text AS unseen_from
FROM pg_current_snapshot() AS snapshot

-- count_missing --
-- Missing media: those that nobody has tried to embed; those that could not be embedded but have a vector in the live
-- space, so that searches would lose them; those that could not be embedded and have none there either; and examples of
-- the first two.
WITH missing AS MATERIALIZED (
    SELECT m.id, u."mediaId" IS NOT NULL AS tried,
        EXISTS (SELECT FROM image_embeddings l WHERE l."mediaId" = m.id) AS shown
    FROM media m
    LEFT JOIN twinlens_unreadable u ON u."mediaId" = m.id AND u.space = %(number)s
    WHERE m.status = 'ready' AND m.kind = 'image'
        AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)
)
SELECT count(*) FILTER (WHERE NOT tried) AS untried,
    count(*) FILTER (WHERE tried AND shown) AS lost,
    count(*) FILTER (WHERE tried AND NOT shown) AS unreadable,
    (array_agg(id ORDER BY id) FILTER (WHERE NOT tried OR shown))[1:3] AS examples
FROM missing

-- missing_since --
-- Missing media that were added since: the id, whether it was tried in vain, whether it has a vector in the live space.
SELECT m.id, u."mediaId" IS NOT NULL AS tried, EXISTS (SELECT FROM image_embeddings l WHERE l."mediaId" = m.id) AS shown
FROM media m
LEFT JOIN twinlens_unreadable u ON u."mediaId" = m.id AND u.space = %(number)s
WHERE m.revision >= %(since)s::text::xid8 AND m.revision < %(until)s::text::xid8
    AND m.status = 'ready' AND m.kind = 'image'
    AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)
ORDER BY m.revision, m.id

-- missing_of_these --
-- The same for the media with these ids.
SELECT m.id, u."mediaId" IS NOT NULL AS tried, EXISTS (SELECT FROM image_embeddings l WHERE l."mediaId" = m.id) AS shown
FROM media m
LEFT JOIN twinlens_unreadable u ON u."mediaId" = m.id AND u.space = %(number)s
WHERE m.id = ANY(%(ids)s) AND m.status = 'ready' AND m.kind = 'image'
    AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)

-- next_page --
-- The next page of media that were added since, by transaction and id: where the page ends, and which of its media are
-- missing. The page is cut before vectors are looked up, so that each page costs the same however few are missing.
WITH page AS MATERIALIZED (
    SELECT revision, id
    FROM media
    WHERE (revision, id) > (%(revision)s::text::xid8, %(id)s) AND revision < %(until)s::text::xid8
        AND status = 'ready' AND kind = 'image'
    ORDER BY revision, id
    LIMIT %(most)s
), last AS (
    SELECT revision::text AS at_revision, id AS at_id FROM page ORDER BY page.revision DESC, page.id DESC LIMIT 1
), missing AS (
    SELECT page.id FROM page WHERE NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = page.id)
)
SELECT at_revision AS revision, at_id AS id, array(SELECT id FROM missing) AS missing FROM last

-- describe --
-- What embedding needs to know about those of these media that still lack a vector.
SELECT m.id, m."productId" AS product_id, m."clientId" AS client_id, m."s3Key" AS s3_key,
    m."contentDigest" IS NOT NULL AND m.width IS NOT NULL AND m.height IS NOT NULL AND m.bytes IS NOT NULL
        AND m."contentType" IS NOT NULL AS described
FROM media m
WHERE m.id = ANY(%(ids)s) AND m.status = 'ready' AND m.kind = 'image'
    AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)

-- reasons --
-- Why media could not be embedded: the reasons, the number of media for each, and one of them.
SELECT reason, count(*) AS media, min("mediaId") AS example
FROM twinlens_unreadable
WHERE space = %(number)s
GROUP BY reason
ORDER BY count(*) DESC
LIMIT 10

-- never_tried --
-- Those of these media of which no failure is recorded.
SELECT id FROM unnest(%(ids)s::text[]) AS id
WHERE NOT EXISTS (SELECT FROM twinlens_unreadable u WHERE u."mediaId" = id AND u.space = %(number)s)

-- due_again --
-- Media that could not be embedded and are due for another try: after minutes, then hours, then days.
SELECT "mediaId" FROM twinlens_unreadable
WHERE space = %(number)s AND at < now() - least(interval '1 minute' * 4 ^ least(attempts, 6), interval '1 day')
ORDER BY at
LIMIT %(most)s

-- hold_products --
-- Until the transaction ends, keep these media from getting other pictures.
SELECT FROM products WHERE id IN (SELECT "productId" FROM media WHERE id = ANY(%(ids)s)) ORDER BY id FOR SHARE

-- fill_vector --
-- Store a media's vector in the space, unless it has one there, or has another picture by now.
INSERT INTO {space} (space, "mediaId", embedding, blank, reading)
SELECT %(number)s, id, %(embedding)s, %(blank)s, %(reading)s FROM media
WHERE id = %(media_id)s AND "s3Key" = %(s3_key)s
ON CONFLICT ("mediaId") DO NOTHING

-- forget_unreadable --
-- These media have been embedded after all.
DELETE FROM twinlens_unreadable WHERE space = %(number)s AND "mediaId" = ANY(%(ids)s)

-- note_unreadable --
-- Record why a media could not be embedded, if it is still there.
INSERT INTO twinlens_unreadable (space, "mediaId", reason)
SELECT %(number)s, id, %(reason)s FROM media WHERE id = %(media_id)s FOR KEY SHARE
ON CONFLICT ("mediaId", space) DO UPDATE
    SET reason = excluded.reason, attempts = twinlens_unreadable.attempts + 1, at = now()

-- hold_product --
-- Lock the product before its media: everything locks in this order.
SELECT FROM products WHERE id = %(product_id)s FOR SHARE

-- add_facts --
-- Fill in what a media's row lacks. The digest is left out where another media of the product has it.
UPDATE media m
SET "contentType" = coalesce(m."contentType", %(content_type)s), bytes = coalesce(m.bytes, %(bytes)s),
    width = coalesce(m.width, %(width)s), height = coalesce(m.height, %(height)s),
    "contentDigest" = coalesce(m."contentDigest", CASE WHEN NOT EXISTS (
        SELECT FROM media o WHERE o."productId" = m."productId" AND o."contentDigest" = %(digest)s
    ) THEN %(digest)s::bytea END)
WHERE m.id = %(media_id)s
