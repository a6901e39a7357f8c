-- Every statement of indexes.py: a name, a sentence, named parameters. {space} is the space's table of vectors.

-- list_indexes --
-- The HNSW indexes of the space, whether each is whole, and what was measured of it.
SELECT c.relname AS name, i.indisvalid AS valid, t."clientId" AS client_id, t.vectors, t."efSearch" AS ef_search, t.recall
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
LEFT JOIN twinlens_indexes t ON t.name = c.relname
WHERE i.indrelid = %(table)s::regclass AND a.amname = 'hnsw'
ORDER BY c.relname

-- list_large_clients --
-- Clients with at least so many active vectors in the space, the largest first.
SELECT "clientId", count(*) FROM {space} WHERE active GROUP BY "clientId" HAVING count(*) >= %(least)s ORDER BY 2 DESC

-- count_changes --
-- How many rows of the space were written since the database counts, and how many since it last took stock of them.
SELECT n_tup_ins + n_tup_upd + n_tup_del, n_mod_since_analyze, n_live_tup
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
-- What was measured of an index that is gone.
DELETE FROM twinlens_indexes WHERE name = %(name)s

-- forget_indexes --
-- What was measured of indexes that somebody else has dropped.
DELETE FROM twinlens_indexes WHERE space = %(space)s AND name <> ALL(%(names)s)

-- note_index --
-- How far an index must look.
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
-- How many processes build an index beside the one that was asked to.
SELECT set_config('max_parallel_maintenance_workers', %(count)s::text, false)

-- progress --
-- How far the build of an index is that another connection is at.
SELECT phase, tuples_done, blocks_done, blocks_total
FROM pg_stat_progress_create_index
WHERE pid = %(pid)s

-- sample --
-- Vectors of the client's, drawn at random.
SELECT embedding FROM {space} WHERE "clientId" = %(client_id)s AND active ORDER BY random() LIMIT %(count)s

-- nearest_exactly --
-- The inner products of the nearest, by looking at each one.
SELECT -(embedding <#> %(embedding)s) FROM {space}
WHERE "clientId" = %(client_id)s AND active
ORDER BY (embedding <#> %(embedding)s) + 0
LIMIT %(limit)s

-- nearest_by_index --
-- The same through the client's own index.
SELECT -(embedding <#> %(embedding)s) FROM {space}
WHERE "clientId" = %(client_id)s AND active
ORDER BY embedding <#> %(embedding)s
LIMIT %(limit)s

-- set_search_effort --
-- How the next index search of this transaction goes: through the index, whatever the statistics make the planner
-- believe; so far; and on past that while rows are missing.
SELECT set_config('enable_sort', 'off', true), set_config('hnsw.ef_search', %(ef_search)s::text, true),
    set_config('hnsw.iterative_scan', 'relaxed_order', true)

-- analyse --
-- Let PostgreSQL count what is there, so that it plans by what is true.
ANALYZE products, media, {space}
