-- Every statement of rereading.py: a name, a sentence, named parameters. {space} is a space's table of vectors.

-- begin --
-- Look through the space from its first media on, unless that has been begun with this version of the readers or a later
-- one.
INSERT INTO twinlens_readings AS r (space, reading)
SELECT number, %(reading)s FROM twinlens_spaces WHERE number = %(number)s
ON CONFLICT (space) DO UPDATE SET reading = excluded.reading, revision = DEFAULT, "mediaId" = DEFAULT
    WHERE r.reading < excluded.reading

-- place --
-- Up to where the space has been looked through with this version of the readers; no row where a later one does it.
SELECT revision::text, "mediaId" AS id FROM twinlens_readings WHERE space = %(number)s AND reading = %(reading)s

-- next_page --
-- The next media, by transaction and id: where the page ends, the first of its media whose vectors an earlier version of
-- the readers has made, and where those end. The page is cut before vectors are looked up, so that each page costs the
-- same.
WITH page AS MATERIALIZED (
    SELECT revision, id
    FROM media
    WHERE (revision, id) > (%(revision)s::text::xid8, %(id)s) AND status = 'ready' AND kind = 'image'
    ORDER BY revision, id
    LIMIT %(most)s
), earlier AS MATERIALIZED (
    SELECT page.revision, page.id
    FROM page
    JOIN {space} v ON v."mediaId" = page.id
    WHERE v.reading < %(reading)s
    ORDER BY page.revision, page.id
    LIMIT %(at_once)s
)
SELECT page.revision::text, page.id, array(SELECT id FROM earlier ORDER BY revision, id) AS earlier,
    (SELECT revision::text FROM earlier ORDER BY earlier.revision DESC, earlier.id DESC LIMIT 1) AS earlier_revision
FROM page
ORDER BY page.revision DESC, page.id DESC
LIMIT 1

-- move --
-- The space has been looked through up to this media. What transactions have added that may not be visible yet is still
-- to come: of what is at least as new as the oldest open transaction, nothing is left behind. Revisions from an earlier
-- life of the database, before it was restored from a dump, may lie above all of those.
UPDATE twinlens_readings r SET revision = new.revision, "mediaId" = new.id
FROM (
    SELECT CASE WHEN open THEN oldest ELSE at END AS revision, CASE WHEN open THEN '' ELSE %(id)s END AS id
    FROM (
        SELECT at, pg_snapshot_xmin(snapshot) AS oldest,
            at >= pg_snapshot_xmin(snapshot) AND at < pg_snapshot_xmax(snapshot) AS open
        FROM (SELECT %(revision)s::text::xid8 AS at, pg_current_snapshot() AS snapshot) AS now
    ) AS bounds
) AS new
WHERE r.space = %(number)s AND r.reading = %(reading)s AND (r.revision, r."mediaId") < (new.revision, new.id)

-- describe --
-- What looking again needs to know of those of these media whose vectors an earlier version of the readers has made.
SELECT m.id, m."productId" AS product_id, m."clientId" AS client_id, m."s3Key" AS s3_key,
    m."thumbnailKey" AS thumbnail_key, m."contentDigest" AS digest, m.width, m.height, v.embedding, v.blank, v.reading
FROM media m
JOIN {space} v ON v."mediaId" = m.id
WHERE m.id = ANY(%(ids)s) AND m.status = 'ready' AND m.kind = 'image' AND v.reading < %(reading)s

-- correct_vector --
-- Store what the picture is read as now, unless its media has other bytes by now. Without an embedding the old one stays.
UPDATE {space} v
SET embedding = coalesce(%(embedding)s, v.embedding), blank = %(blank)s, reading = %(reading)s
FROM media m
WHERE v."mediaId" = %(media_id)s AND m.id = v."mediaId" AND m."s3Key" = %(s3_key)s
    AND m."contentDigest" IS NOT DISTINCT FROM %(digest)s AND v.reading < %(reading)s

-- correct_size --
-- Store the width and height that the picture has.
UPDATE media SET width = %(width)s, height = %(height)s
WHERE id = %(media_id)s AND "s3Key" = %(s3_key)s AND "contentDigest" IS NOT DISTINCT FROM %(digest)s
    AND (width, height) IS DISTINCT FROM (%(width)s, %(height)s)

-- hold_product --
-- Lock the product before its media: everything locks in this order.
SELECT FROM products WHERE id = %(product_id)s FOR SHARE

-- note_unread --
-- Record why a media could not be looked at again, if it is still there.
INSERT INTO twinlens_unread (space, "mediaId", reason)
SELECT %(number)s, id, %(reason)s FROM media WHERE id = %(media_id)s FOR KEY SHARE
ON CONFLICT ("mediaId", space) DO UPDATE
    SET reason = excluded.reason, attempts = twinlens_unread.attempts + 1, at = now()

-- forget_unread --
-- This media has been looked at after all.
DELETE FROM twinlens_unread WHERE space = %(number)s AND "mediaId" = ANY(%(ids)s)

-- due_again --
-- Media that could not be looked at and are due for another try: after minutes, then hours, then days.
SELECT "mediaId" FROM twinlens_unread
WHERE space = %(number)s AND at < now() - least(interval '1 minute' * 4 ^ least(attempts, 6), interval '1 day')
ORDER BY at
LIMIT %(most)s

-- names_thumbnail --
-- Whether the media is there, and still has this thumbnail.
SELECT id FROM media WHERE id = %(media_id)s AND "thumbnailKey" = %(thumbnail_key)s
