-- Every statement of overview.py: a name, a sentence, named parameters.

-- spaces --
-- The embedding spaces, the newest first: what became of each, and whether somebody re-embeds for it at this moment,
-- which the lock says that whoever does it holds.
SELECT s.number, s.id, s.dimensions, s.model, s."createdAt" AS created_at, s."retiredAt" AS retired_at,
    CASE WHEN s.live THEN 'live' WHEN s."retiredAt" IS NOT NULL THEN 'retired' ELSE 'filling' END AS state,
    EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid::bigint = %(locks)s AND l.objid::bigint = s.number
            AND l.objsubid = 2 AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS being_filled
FROM twinlens_spaces s
ORDER BY s.number DESC
LIMIT %(most)s

-- indexes --
-- The HNSW indexes of a space, those first that no search may use yet, then those of the largest clients; how many there
-- are in all. Until an index was measured, whose it is stands in its predicate alone.
SELECT coalesce(
        t."clientId",
        replace(substring(pg_get_expr(i.indpred, i.indrelid) FROM '"clientId" = ''(.*)''::text'), '''''', '''')
    ) AS client_id,
    CASE WHEN i.indisvalid THEN 'ready' WHEN b.pid IS NOT NULL THEN 'building' ELSE 'incomplete' END AS state,
    t.vectors, t."efSearch" AS ef_search, t.recall, t."measuredAt" AS measured_at, count(*) OVER () AS total
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
LEFT JOIN twinlens_indexes t ON t.name = c.relname
LEFT JOIN pg_stat_progress_create_index b ON b.index_relid = i.indexrelid
WHERE i.indrelid = %(table)s::regclass AND a.amname = 'hnsw'
ORDER BY i.indisvalid, t.vectors DESC NULLS FIRST, c.relname
LIMIT %(most)s

-- compared --
-- Of each client's searches that were answered by an index and then exactly: how many are kept, and the mean share of
-- the exact answer that the index had found. At most a thousand are kept in a space.
SELECT "clientId" AS client_id, count(*) AS searches,
    avg(CASE WHEN expected = 0 THEN 1 ELSE found::float8 / expected END)::float8 AS recall
FROM twinlens_recall
WHERE space = %(space)s
GROUP BY "clientId"
