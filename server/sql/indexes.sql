-- Every statement of indexes.py: a name, a sentence, named parameters. {space} is the space's table of vectors.

-- list_indexes --
-- The HNSW indexes of the space, whether each is complete, and what was measured of it.
SELECT c.relname AS name, i.indisvalid AS valid, t."clientId" AS client_id, t.vectors, t."efSearch" AS ef_search, t.recall
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
LEFT JOIN twinlens_indexes t ON t.name = c.relname
WHERE i.indrelid = %(table)s::regclass AND a.amname = 'hnsw'
ORDER BY c.relname

-- list_large_clients --
-- Clients with at least so many active vectors in the space, the largest first.
SELECT "clientId" AS client_id, count(*) AS vectors
FROM {space}
WHERE active
GROUP BY "clientId"
HAVING count(*) >= %(least)s
ORDER BY vectors DESC

-- count_changes --
-- How many rows of the space were ever written as the database counts them, how many since it last analysed the table,
-- and how many there are.
SELECT n_tup_ins + n_tup_upd + n_tup_del AS written, n_mod_since_analyze AS since_analysed, n_live_tup AS rows
FROM pg_stat_user_tables
WHERE relid = %(table)s::regclass

-- create_index --
-- An HNSW index of one client's own.
CREATE INDEX CONCURRENTLY {index} ON {space} USING hnsw (embedding halfvec_ip_ops)
WHERE "clientId" = {client} AND active

-- drop_index --
-- Drop an HNSW index without stopping searches.
DROP INDEX CONCURRENTLY IF EXISTS {index}

-- forget_index --
-- Forget what was measured of an index that was dropped.
DELETE FROM twinlens_indexes WHERE name = %(name)s

-- forget_indexes --
-- Forget what was measured of indexes that somebody else has dropped.
DELETE FROM twinlens_indexes WHERE space = %(space)s AND name <> ALL(%(names)s)

-- note_index --
-- Keep which ef_search an index needs.
INSERT INTO twinlens_indexes (name, space, "clientId", vectors, "efSearch", recall)
VALUES (%(name)s, %(space)s, %(client_id)s, %(vectors)s, %(ef_search)s, %(recall)s)
ON CONFLICT (name) DO UPDATE
    SET vectors = excluded.vectors, "efSearch" = excluded."efSearch", recall = excluded.recall, "measuredAt" = now()

-- raise_memory --
-- Memory for building an index: what this one needs, and never less than the database gives anyway.
SELECT set_config('maintenance_work_mem', greatest(%(kilobytes)s, setting::bigint) || 'kB', false)
FROM pg_settings
WHERE name = 'maintenance_work_mem'

-- set_builders --
-- How many processes build an index beside the backend of the connection.
SELECT set_config('max_parallel_maintenance_workers', %(count)s::text, false)

-- progress --
-- How far another connection is with building an index.
SELECT phase, tuples_done AS vectors, blocks_done AS blocks, blocks_total AS of_blocks
FROM pg_stat_progress_create_index
WHERE pid = %(pid)s

-- sample --
-- Vectors of the client's, drawn at random.
SELECT embedding FROM {space} WHERE "clientId" = %(client_id)s AND active ORDER BY random() LIMIT %(count)s

-- nearest_exactly --
-- The inner products of the nearest, by looking at each one.
SELECT -(embedding <#> %(embedding)s) AS product FROM {space}
WHERE "clientId" = %(client_id)s AND active
ORDER BY (embedding <#> %(embedding)s) + 0
LIMIT %(limit)s

-- nearest_by_index --
-- The same through the client's own index.
SELECT -(embedding <#> %(embedding)s) AS product FROM {space}
WHERE "clientId" = %(client_id)s AND active
ORDER BY embedding <#> %(embedding)s
LIMIT %(limit)s

-- analyse --
-- Have PostgreSQL count its rows, so that it plans by what is true.
ANALYZE products, media, {space}
