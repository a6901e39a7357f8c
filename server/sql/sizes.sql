-- Every statement of sizes.py: a name, a sentence, named parameters. {space} is a space's table of vectors.

-- sizes --
-- What the catalogues of all clients hold, and the largest clients with what each has. Each count reads one index, or
-- the small table of products.
WITH of_client AS MATERIALIZED (
    SELECT "clientId" AS id, count(*) AS products, count(*) FILTER (WHERE "isActive") AS active
    FROM products GROUP BY "clientId"
), media_of_client AS MATERIALIZED (
    SELECT "clientId" AS id, count(*) AS media FROM media GROUP BY "clientId"
)
SELECT p.clients, p.products, p.active AS active_products, m.media, m.largest AS media_of_largest_client, v.vectors,
    q.pending AS pending_media, q.failed AS failed_media, l.largest_clients
FROM (
    SELECT count(*) AS clients, coalesce(sum(products), 0)::bigint AS products, coalesce(sum(active), 0)::bigint AS active
    FROM of_client
) AS p,
(SELECT coalesce(sum(media), 0)::bigint AS media, coalesce(max(media), 0) AS largest FROM media_of_client) AS m,
(SELECT count(*) AS vectors FROM {space}) AS v,
-- Of what another system has written: what waits for a worker, and what a worker has set aside.
(
    SELECT count(*) FILTER (WHERE "nextAt" IS NOT NULL) AS pending,
        count(*) FILTER (WHERE "nextAt" IS NULL AND code IS NOT NULL) AS failed
    FROM twinlens_pending
) AS q,
(
    SELECT coalesce(jsonb_agg(to_jsonb(one) ORDER BY media DESC, products DESC, id COLLATE "C"), '[]') AS largest_clients
    FROM (
        SELECT id, products, active AS active_products, coalesce(media, 0) AS media
        FROM of_client LEFT JOIN media_of_client USING (id)
        ORDER BY media DESC NULLS LAST, products DESC, id COLLATE "C"
        LIMIT %(most_clients)s
    ) AS one
) AS l

-- without_vector --
-- Pictures without a vector in the space: those that nobody has tried to embed yet, and those that were tried in vain.
SELECT count(*) FILTER (WHERE u."mediaId" IS NULL) AS untried, count(*) FILTER (WHERE u."mediaId" IS NOT NULL) AS failed
FROM media m
LEFT JOIN twinlens_unreadable u ON u."mediaId" = m.id AND u.space = %(number)s
WHERE m.status = 'ready' AND m.kind = 'image' AND NOT EXISTS (SELECT FROM {space} v WHERE v."mediaId" = m.id)

-- other_spaces --
-- The numbers of the spaces beside the server's own, and whether they are retired. There are few.
SELECT number, "retiredAt" IS NOT NULL AS retired FROM twinlens_spaces WHERE number <> %(own)s ORDER BY number

-- vectors --
-- How many vectors another space holds.
SELECT count(*) AS vectors FROM {space}

-- overdue --
-- For how many seconds the picture has been due that has waited for a worker longest; 0 where none waits.
SELECT coalesce(extract(epoch FROM now() - min("nextAt")), 0)::float8 AS seconds
FROM twinlens_pending WHERE "nextAt" <= now()

-- index_states --
-- The space's HNSW indexes: those that searches may use, those that some session is building, and those that an
-- interrupted build has left.
SELECT count(*) FILTER (WHERE i.indisvalid) AS ready,
    count(*) FILTER (WHERE NOT i.indisvalid AND b.pid IS NOT NULL) AS building,
    count(*) FILTER (WHERE NOT i.indisvalid AND b.pid IS NULL) AS incomplete
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
LEFT JOIN pg_stat_progress_create_index b ON b.index_relid = i.indexrelid
WHERE i.indrelid = %(table)s::regclass AND a.amname = 'hnsw'
