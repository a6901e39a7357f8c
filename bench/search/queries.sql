-- What the legacy system and others like it are made of and asked: a name, a sentence, the statement. {dimensions} is a
-- number.

-- legacy_schema --
-- The legacy system's tables, with the keys and types that they had, and no index on vectors.
CREATE TABLE products (id text PRIMARY KEY, "clientId" text, name text, sku text UNIQUE, "isActive" boolean);
CREATE TABLE media (id text PRIMARY KEY, "productId" text, "s3Key" text, width int, height int);
CREATE TABLE image_embeddings ("mediaId" text, embedding vector({dimensions}))

-- legacy_search --
-- Its query, to the letter.
SELECT p.id as "productId", p.name as "productName", ie.embedding <#> $1::vector as score, m."s3Key", m.width, m.height FROM image_embeddings ie JOIN media m ON
  ie."mediaId" = m.id JOIN products p ON m."productId" = p.id WHERE p."clientId" = $2 AND p."isActive" = true ORDER BY ie.embedding <#> $1::vector LIMIT $3

-- filtered_schema --
-- The best of the usual advice: the client beside the vector, to be filtered by without a join.
CREATE TABLE products (id text PRIMARY KEY, "clientId" text, name text, sku text UNIQUE, "isActive" boolean);
CREATE TABLE media (id text PRIMARY KEY, "productId" text, "s3Key" text, width int, height int);
CREATE TABLE image_embeddings ("mediaId" text, "clientId" text, embedding vector({dimensions}))

-- filtered_indexes --
-- One HNSW on all rows, and an index by which small clients can be searched without it.
CREATE INDEX image_embeddings_hnsw ON image_embeddings USING hnsw (embedding vector_ip_ops);
CREATE INDEX image_embeddings_client ON image_embeddings ("clientId")

-- filtered_search --
-- The nearest of one client first, then their products and media.
SELECT p.id as "productId", p.name as "productName", ie.score, m."s3Key", m.width, m.height
FROM (
    SELECT "mediaId", embedding <#> $1::vector AS score FROM image_embeddings
    WHERE "clientId" = $2 ORDER BY embedding <#> $1::vector LIMIT $3
) ie
JOIN media m ON ie."mediaId" = m.id
JOIN products p ON m."productId" = p.id
WHERE p."clientId" = $2 AND p."isActive" = true
ORDER BY ie.score

-- filtered_settings --
-- As pgvector's own documentation advises for filters.
SELECT set_config('hnsw.ef_search', '100', false), set_config('hnsw.iterative_scan', 'strict_order', false)

-- make_stamp --
-- What a database of this bench holds.
CREATE TABLE bench_stamp (stamp text NOT NULL)

-- set_stamp --
-- Written last: a database that was interrupted has none.
INSERT INTO bench_stamp VALUES (%(stamp)s)

-- get_stamp --
-- What this database holds, if it was filled to its end.
SELECT stamp FROM bench_stamp

-- list_indexes --
-- The HNSW indexes of a database: the table, the name, bytes.
SELECT i.indrelid::regclass::text AS "table", c.relname AS name, pg_relation_size(c.oid) AS bytes
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
WHERE a.amname = 'hnsw'
ORDER BY bytes DESC

-- list_tables --
-- The tables of a database: the name, bytes with what lies out of line, bytes of its indexes.
SELECT relname AS name, pg_table_size(oid) AS bytes, pg_indexes_size(oid) AS "indexBytes"
FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_table_size(oid) > 1000000
ORDER BY bytes DESC

-- settings --
-- Those of the server that weigh most here.
SELECT name, current_setting(name) FROM pg_settings
WHERE name IN ('shared_buffers', 'maintenance_work_mem', 'work_mem', 'effective_cache_size', 'jit',
    'max_parallel_workers_per_gather', 'server_version')
ORDER BY name

-- versions --
-- Of pgvector.
SELECT extversion FROM pg_extension WHERE extname = 'vector'

-- flat_schema --
-- A table as those of our spaces are, with nothing beside it.
CREATE EXTENSION IF NOT EXISTS vector;
DROP TABLE IF EXISTS flat, bits;
CREATE TABLE flat (
    space integer NOT NULL,
    "mediaId" text PRIMARY KEY,
    "clientId" text NOT NULL,
    active boolean NOT NULL,
    embedding halfvec(512) NOT NULL
) WITH (toast_tuple_target = 8160);
CREATE INDEX flat_client ON flat ("clientId") WHERE active

-- flat_index --
-- An HNSW of one client's own.
CREATE INDEX {name} ON flat USING hnsw (embedding halfvec_ip_ops) WHERE "clientId" = {client} AND active

-- bits_schema --
-- The signs of the components, in a table that is narrow and lies client by client.
CREATE TABLE bits AS
    SELECT "mediaId", "clientId", binary_quantize(embedding)::bit(512) AS code FROM flat ORDER BY "clientId";
CREATE INDEX bits_client ON bits ("clientId")

-- exact_search --
-- Every vector of the client is looked at.
SELECT "mediaId" FROM flat
WHERE "clientId" = %(client)s AND active
ORDER BY (embedding <#> %(vector)s) + 0
LIMIT 24

-- index_search --
-- Through the client's own index.
SELECT "mediaId" FROM flat
WHERE "clientId" = %(client)s AND active
ORDER BY embedding <#> %(vector)s
LIMIT 24

-- bits_search --
-- The nearest by the signs of their components, and the nearest of those by themselves.
SELECT v."mediaId"
FROM (
    SELECT "mediaId" FROM bits
    WHERE "clientId" = %(client)s
    ORDER BY (code <~> binary_quantize(%(vector)s::halfvec(512))::bit(512)) + 0
    LIMIT %(first)s
) b
JOIN flat v USING ("mediaId")
ORDER BY (v.embedding <#> %(vector)s) + 0
LIMIT 24

-- index_settings --
-- How far an index is searched, and that it is used.
SELECT set_config('hnsw.ef_search', %(first)s::text, false), set_config('hnsw.iterative_scan', 'relaxed_order', false),
    set_config('enable_sort', 'off', false), set_config('plan_cache_mode', 'force_custom_plan', false)

-- exact_settings --
-- Nothing but a plan for each search.
SELECT set_config('plan_cache_mode', 'force_custom_plan', false)

-- bits_settings --
-- The same.
SELECT set_config('plan_cache_mode', 'force_custom_plan', false)

-- delete_some --
-- Every n-th row of a client.
DELETE FROM flat WHERE "clientId" = %(client)s AND substr("mediaId", 2)::integer %% %(every)s = 0

-- plan_search --
-- How long a search takes to plan.
EXPLAIN (SUMMARY, FORMAT json)
SELECT "mediaId" FROM flat
WHERE "clientId" = %(client)s AND active
ORDER BY embedding <#> (SELECT embedding FROM flat LIMIT 1)
LIMIT 24

-- add_row --
-- A row like another.
INSERT INTO flat SELECT 1, %(media)s, "clientId", true, embedding FROM flat WHERE "clientId" = %(client)s LIMIT 1

-- remove_row --
-- Remove it again.
DELETE FROM flat WHERE "mediaId" = %(media)s

-- add_attributes --
-- Facts to filter by, for products that have none: the bench of row-level security narrows searches by them.
UPDATE products
SET attributes = jsonb_build_object(
    'hundredth', mod(abs(hashtext(id)::bigint), 100), 'tenth', mod(abs(hashtext(id || 'tenth')::bigint), 10),
    'price', mod(abs(hashtext(id || 'price')::bigint), 10000) / 100.0
)
WHERE attributes = '{{}}'
