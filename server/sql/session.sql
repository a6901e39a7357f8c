-- Every statement of session.py and pooling.py, and one of migrations.py: a name, a sentence, named parameters.

-- use_default_path --
-- For the rest of the transaction, search the schemas that role, database or URL give, whatever the last user of this
-- session of PostgreSQL set; and that of pgvector, whose types and operators carry no schema in our statements.
SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', nullif(s.reset_val, ''), (
    SELECT pg_catalog.quote_ident(n.nspname)
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector'
)), true)
FROM pg_catalog.pg_settings s
WHERE s.name = 'search_path'

-- look --
-- The process of PostgreSQL that answers, and the schemas to search: those of the path that there are now, so that none
-- that is made later comes before that of our tables, which is the first. Where there are none, the schema that has our
-- tables, if it is the only one. Temporary tables come last.
SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.concat_ws(', ', coalesce(
    (
        SELECT pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ' ORDER BY name IS DISTINCT FROM (
            SELECT n.nspname
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = pg_catalog.to_regclass('twinlens_migrations')
        ), place)
        FROM unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s (name, place)
    ),
    (
        SELECT min(pg_catalog.quote_ident(n.nspname))
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = 'twinlens_migrations' AND c.relkind = 'r'
        HAVING count(*) = 1
    )
), 'pg_temp') AS path

-- settle --
-- Set what differs from what is wanted, until the end of the session or of the transaction. A setting that this version
-- of PostgreSQL does not have is left out.
SELECT count(pg_catalog.set_config(name, value, {until_end}))
FROM (VALUES {wanted}) AS w (name, value)
WHERE pg_catalog.current_setting(name, true) <> value

-- set_each --
-- Set each of these until the end of the transaction: the client whose rows alone are seen and written, and whatever its
-- statements need. One statement for all of them, since each one is felt in the shortest searches.
SELECT {each}

-- set_one --
-- One of them.
pg_catalog.set_config({name}, %s, true)

-- process --
-- The process of PostgreSQL that answers.
SELECT pg_catalog.pg_backend_pid()

-- identity --
-- Which database this is: the number of its cluster, its own number there, and its name.
SELECT s.system_identifier, d.oid::bigint, d.datname::text
FROM pg_catalog.pg_control_system() AS s, pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database()
