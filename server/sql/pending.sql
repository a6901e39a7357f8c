-- Every statement of pending.py and of the command worker: a name, a sentence, named parameters. {space} is the space's
-- table of vectors. The ids are those of the database.

-- listen --
-- Hear of pictures that are to be embedded.
LISTEN twinlens_pending

-- claim --
-- Take media that are due, those that have waited longest first, and count the tries that now begin. Those that were
-- being tried when a process ended are taken alone.
WITH due AS MATERIALIZED (
    SELECT "mediaId" AS id FROM twinlens_pending
    WHERE worker IS NULL AND "nextAt" <= now() AND (deaths > 0) = %(alone)s
    ORDER BY "nextAt", "mediaId"
    LIMIT %(most)s
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE twinlens_pending q SET worker = %(worker)s, claim = pg_current_xact_id(), attempts = attempts + 1
    FROM due
    WHERE q."mediaId" = due.id
    RETURNING q."mediaId" AS id, q.claim, q.attempts, q.deaths
)
SELECT m.id, m."productId" AS product_id, m."clientId" AS client_id, m."s3Key" AS s3_key,
    m."thumbnailKey" AS thumbnail_key, taken.claim::text, taken.attempts, taken.deaths
FROM taken
JOIN media m ON m.id = taken.id
ORDER BY m.id

-- free_the_dead --
-- Give back what workers had taken that have ended in the middle: PostgreSQL has released their locks. It is due at once
-- the first time, and later where that has happened before; at once, too, where it was the last time.
WITH left_behind AS MATERIALIZED (
    SELECT "mediaId" AS id FROM twinlens_pending
    WHERE worker IS NOT NULL AND worker::oid NOT IN (
        SELECT objid FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND classid = %(locks)s::oid
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
    FOR UPDATE SKIP LOCKED
)
UPDATE twinlens_pending q
SET worker = NULL, claim = NULL, deaths = deaths + 1, code = %(code)s, reason = %(reason)s,
    "nextAt" = now() + CASE WHEN deaths + 1 < %(most)s THEN %(pause)s * deaths ELSE 0 END * interval '1 second'
FROM left_behind
WHERE q."mediaId" = left_behind.id

-- give_back --
-- Give back what a worker has taken and not tried to its end; those tries do not count.
UPDATE twinlens_pending SET worker = NULL, claim = NULL, attempts = greatest(attempts - 1, 0) WHERE worker = %(worker)s

-- queue_strays --
-- Queue what is pending and was written where triggers do not run, as by logical replication.
INSERT INTO twinlens_pending ("mediaId")
SELECT id FROM media m
WHERE m.status = 'pending' AND m.kind = 'image'
    AND NOT EXISTS (SELECT FROM twinlens_pending q WHERE q."mediaId" = m.id AND q."nextAt" IS NOT NULL)
ON CONFLICT ("mediaId") DO UPDATE SET "nextAt" = now(), attempts = 0, deaths = 0, code = NULL, reason = NULL

-- next_due --
-- In how many seconds the next media is due that nobody has taken; no row where there is none.
SELECT greatest(0, extract(epoch FROM "nextAt" - now()))::float8 FROM twinlens_pending
WHERE worker IS NULL AND "nextAt" IS NOT NULL
ORDER BY "nextAt"
LIMIT 1

-- hold_products --
-- Lock products before their media: everything locks in this order.
SELECT FROM products WHERE id = ANY(%(product_ids)s) ORDER BY id FOR SHARE

-- hold_uploads --
-- Keep the objects of these uploads, the new thumbnails, from being swept away until the transaction ends.
SELECT pg_advisory_xact_lock_shared(%(locks)s, hashtext(upload)) FROM unnest(%(uploads)s::text[]) AS upload

-- hold_media --
-- Lock media, and give what they were before. What other transactions have made of them is visible to the next statement.
SELECT id, "contentDigest" AS digest FROM media WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE

-- make_ready --
-- Store what was found out about pictures, and make their media ready; gives the ids of those that are. A media that has
-- changed since it was taken stays as it is. The digest is left out where another media of the product has it.
UPDATE media m
SET status = 'ready', "contentType" = made.content_type, bytes = made.bytes, width = made.width, height = made.height,
    "thumbnailKey" = CASE
        WHEN made.upload IS NULL THEN m."thumbnailKey"
        WHEN NOT EXISTS (SELECT FROM twinlens_swept s WHERE s."mediaId" = made.upload) THEN made.thumbnail_key
    END,
    "contentDigest" = CASE WHEN NOT EXISTS (
        SELECT FROM media o WHERE o."productId" = m."productId" AND o."contentDigest" = made.digest AND o.id <> m.id
    ) THEN made.digest END
FROM unnest(
    %(ids)s::text[], %(claims)s::text[], %(s3_keys)s::text[], %(content_types)s::text[], %(sizes)s::bigint[],
    %(widths)s::integer[], %(heights)s::integer[], %(digests)s::bytea[], %(uploads)s::text[], %(thumbnail_keys)s::text[]
) AS made (id, claim, s3_key, content_type, bytes, width, height, digest, upload, thumbnail_key)
WHERE m.id = made.id AND m.status = 'pending' AND m."s3Key" = made.s3_key
    AND EXISTS (SELECT FROM twinlens_pending q WHERE q."mediaId" = m.id AND q.claim = made.claim::xid8)
RETURNING m.id

-- put_vector --
-- Store a media's vector in the space, in place of the one that it may have there.
INSERT INTO {space} AS v (space, "mediaId", embedding, blank, reading)
VALUES (%(number)s, %(media_id)s, %(embedding)s, %(blank)s, %(reading)s)
ON CONFLICT ("mediaId") DO UPDATE
    SET embedding = excluded.embedding, blank = excluded.blank, reading = excluded.reading

-- forget_vectors --
-- Remove the vectors that these media have in other spaces.
SELECT twinlens_forget_vectors(%(ids)s, %(number)s)

-- forget_unreadable --
-- These media have been embedded after all.
DELETE FROM twinlens_unreadable WHERE "mediaId" = ANY(%(ids)s)

-- forget_unread --
-- The same for what could not be looked at again.
DELETE FROM twinlens_unread WHERE "mediaId" = ANY(%(ids)s)

-- forget --
-- Take out of the queue what is not pending any more, where no trigger has done that.
DELETE FROM twinlens_pending WHERE ("mediaId", claim) IN (
    SELECT id, claim::xid8 FROM unnest(%(ids)s::text[], %(claims)s::text[]) AS tried (id, claim)
)

-- put_off --
-- Try a media again after so many seconds.
UPDATE twinlens_pending
SET worker = NULL, claim = NULL, "nextAt" = now() + %(pause)s * interval '1 second', code = %(code)s, reason = %(reason)s
WHERE "mediaId" = %(media_id)s AND claim = %(claim)s::text::xid8

-- set_aside --
-- Make a media failed, unless it has changed since it was taken.
UPDATE media m SET status = 'failed'
WHERE m.id = %(media_id)s AND m.status = 'pending' AND m."s3Key" = %(s3_key)s
    AND EXISTS (SELECT FROM twinlens_pending q WHERE q."mediaId" = m.id AND q.claim = %(claim)s::text::xid8)

-- say_why --
-- Record why a media was set aside.
UPDATE twinlens_pending SET "nextAt" = NULL, worker = NULL, claim = NULL, code = %(code)s, reason = %(reason)s
WHERE "mediaId" = %(media_id)s

-- standing --
-- How many pictures wait for their first try, are being tried, wait for another try, and were set aside.
SELECT count(*) FILTER (WHERE worker IS NULL AND "nextAt" IS NOT NULL AND code IS NULL) AS waiting,
    count(*) FILTER (WHERE worker IS NOT NULL) AS tried,
    count(*) FILTER (WHERE worker IS NULL AND "nextAt" IS NOT NULL AND code IS NOT NULL) AS put_off,
    count(*) FILTER (WHERE "nextAt" IS NULL AND code IS NOT NULL) AS set_aside
FROM twinlens_pending

-- reasons --
-- Why pictures were put off or set aside: the codes, the number of pictures for each, one of the sentences, and the id in
-- the API of one of the pictures.
SELECT q.code, q."nextAt" IS NULL AS set_aside, count(*) AS media, (array_agg(q.reason ORDER BY m.id))[1] AS reason,
    (array_agg(coalesce(m."apiId", m.id) ORDER BY m.id))[1] AS example
FROM twinlens_pending q
JOIN media m ON m.id = q."mediaId"
WHERE q.code IS NOT NULL AND q.worker IS NULL
GROUP BY q.code, q."nextAt" IS NULL
ORDER BY q."nextAt" IS NULL DESC, count(*) DESC

-- put_back --
-- Make pictures pending once more that workers have set aside.
UPDATE media m SET status = 'pending'
WHERE m.status = 'failed' AND m.kind = 'image'
    AND EXISTS (SELECT FROM twinlens_pending q WHERE q."mediaId" = m.id AND q."nextAt" IS NULL AND q.code IS NOT NULL)
