-- Every statement of server/ingest about the store: a name, a sentence, named parameters. A media promises the objects
-- that its row names.

-- known --
-- Whether the database has the tables of the store.
SELECT to_regclass('twinlens_store') IS NOT NULL

-- lock --
-- One process at a time decides which store is this database's.
SELECT pg_advisory_xact_lock(%(locks)s, %(lock)s)

-- recorded --
-- The id of this database's store.
SELECT id FROM twinlens_store

-- record --
-- This is the database's store from now on.
INSERT INTO twinlens_store (id) VALUES (%(id)s)
ON CONFLICT (one) DO UPDATE SET id = excluded.id, "markedAt" = now(), "sweptAt" = now()

-- cluster --
-- What tells this cluster from others, the copies that were restored from a dump included.
SELECT system_identifier::text FROM pg_control_system()

-- database --
-- What tells this database from others of its cluster.
SELECT oid::text FROM pg_database WHERE datname = current_database()

-- promised --
-- Keys of some pictures that servers of ours have stored, the newest and the oldest.
(
    SELECT "s3Key" FROM media
    WHERE "s3Key" LIKE 'media/%%/' || id || '.%%'
    ORDER BY "createdAt" DESC
    LIMIT %(count)s
) UNION (
    SELECT "s3Key" FROM media
    WHERE "s3Key" LIKE 'media/%%/' || id || '.%%'
    ORDER BY "createdAt"
    LIMIT %(count)s
)

-- take_turn --
-- Begin a sweep, unless a server has begun one in the last hours.
UPDATE twinlens_store SET "sweptAt" = now()
WHERE "sweptAt" < now() - %(pause)s::interval AND id = %(id)s
RETURNING id

-- with_row --
-- Those of these uploads that are the id of a media which has the picture that it came with, as most are: then nobody
-- need look for a row that names the key.
SELECT id FROM media WHERE id = ANY(%(ids)s) AND strpos("s3Key", '/' || id || '.') > 0

-- named --
-- Those of these keys that a row names: rows that were adopted may name objects of other media's. Reads all rows.
SELECT "s3Key" FROM media WHERE "s3Key" = ANY(%(keys)s)
UNION
SELECT "thumbnailKey" FROM media WHERE "thumbnailKey" = ANY(%(keys)s)

-- backup_runs --
-- Whether a backup of this database is running.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND classid = %(locks)s::oid AND objid = %(lock)s::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)

-- patience --
-- Reading all rows takes longer than any request may.
SET LOCAL statement_timeout = '15min'

-- hold --
-- Hold these media until the transaction ends, so that none of them gets a row; gives those that no upload holds.
SELECT id FROM unnest(%(ids)s::text[]) AS id WHERE pg_try_advisory_xact_lock(%(locks)s, hashtext(id))

-- bury --
-- None of these media may get a row any more.
INSERT INTO twinlens_swept ("mediaId") SELECT unnest(%(ids)s::text[]) ON CONFLICT DO NOTHING

-- forget --
-- No upload is held up for so long.
DELETE FROM twinlens_swept WHERE at < now() - interval '30 days'
