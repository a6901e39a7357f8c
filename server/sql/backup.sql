-- Every statement of server/backup: a name, a sentence, named parameters.

-- keep --
-- From now until this session ends, what the catalogue's pictures were stored as stays in the store.
SELECT pg_advisory_lock_shared(%(locks)s, %(lock)s)

-- still_kept --
-- Whether that is so still.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted
        AND classid = %(locks)s::oid AND objid = %(lock)s::oid
)

-- hold_migrations --
-- Wait for a migration that is going on, and let none begin.
SELECT pg_advisory_lock_shared(%(locks)s, %(lock)s)

-- release_migrations --
-- Let migrations begin again.
SELECT pg_advisory_unlock_shared(%(locks)s, %(lock)s)

-- tables --
-- The tables of the catalogue's schema, which a dump reads.
SELECT c.relname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p')
ORDER BY 1

-- lock_tables --
-- Until the transaction ends, nobody changes or drops these tables. It reads nothing, so the snapshot is taken after it.
LOCK TABLE {tables} IN ACCESS SHARE MODE

-- export_snapshot --
-- A name by which other sessions see what this transaction sees, for as long as it lasts.
SELECT pg_export_snapshot()

-- other_schemas --
-- The schemas that hold nothing of the catalogue.
SELECT nspname::text FROM pg_namespace
WHERE nspname <> %(schema)s AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY 1

-- migrations --
-- What the database has been brought up to date by.
SELECT number, name, digest FROM twinlens_migrations ORDER BY number

-- has_stores --
-- Whether the database knows its store.
SELECT to_regclass('twinlens_store') IS NOT NULL

-- store --
-- The id of the database's store.
SELECT id FROM twinlens_store

-- live_space --
-- The id of the live space, and its model.
SELECT id, model FROM twinlens_spaces WHERE live

-- count_products --
-- How many products there are.
SELECT count(*) FROM products

-- count_media --
-- How many media there are.
SELECT count(*) FROM media

-- other_roles --
-- Roles beside the owners that have rights on the catalogue's tables: those that serve are not among them.
SELECT DISTINCT r.rolname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN aclexplode(c.relacl) AS a
JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v') AND a.grantee <> c.relowner
    AND r.rolname <> ALL (%(serving)s)
ORDER BY 1

-- has_serving_roles --
-- Whether the database knows roles that serve.
SELECT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass('twinlens_access') AND attname = 'servingRoles'
)

-- serving_roles --
-- The roles that serve, or have served.
SELECT unnest("servingRoles") FROM twinlens_access

-- objects --
-- What the rows promise of the store, each key once: how many bytes it has and their SHA-256, where rows say so, and
-- whether it is nothing but thumbnails, which are made anew where they are missing.
SELECT key, max(bytes) AS bytes, min(digest) AS digest, bool_and(thumbnail) AS thumbnail
FROM (
    SELECT "s3Key" AS key, bytes, encode("contentDigest", 'hex') AS digest, false AS thumbnail FROM media
    UNION ALL
    SELECT "thumbnailKey", NULL, NULL, true FROM media WHERE "thumbnailKey" IS NOT NULL
) AS promised
GROUP BY key
ORDER BY key

-- filled --
-- Tables, views and sequences of a schema that no extension has made.
SELECT c.relname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname NOT IN ('products', 'media'), 1

-- has_schema --
-- Whether there is a schema of this name.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)

-- begin --
-- The transaction of a restore.
BEGIN;

-- make_schema --
-- Where pgvector was: whoever may not make schemas may not even ask for one that is there.
CREATE SCHEMA {vector_schema};

-- make_pgvector --
-- Where the dump wants it.
CREATE EXTENSION vector WITH SCHEMA {vector_schema};

-- settle --
-- What a dump has set is set back, and then all is as in every session of ours; functions remember the path. Only what
-- differs is set, since not everybody may set everything.
RESET ALL;
SET client_min_messages = warning;
SELECT count(pg_catalog.set_config(name, value, false)) FROM (VALUES {settings}) AS s (name, value)
WHERE pg_catalog.current_setting(name, true) <> value;

-- record_migration --
-- As a migration is recorded.
INSERT INTO twinlens_migrations (number, name, digest) VALUES ({number}, {name}, {digest});

-- forget_roles --
-- The roles that serve are this cluster's; of one that has the same name by chance, nothing is known.
UPDATE twinlens_access SET "servingRoles" = '{{}}' WHERE "servingRoles" <> '{{}}';

-- own_store --
-- The database's store is the one that was filled beside it.
DELETE FROM twinlens_store;
INSERT INTO twinlens_store (id) VALUES ({id});

-- commit --
-- All of it, or nothing.
COMMIT;

-- analyse --
-- Statistics are in no dump.
ANALYZE {tables}
