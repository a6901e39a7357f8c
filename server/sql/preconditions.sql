-- Every statement of preconditions.py: a name, a sentence, named parameters. They only read.

-- look --
-- The server, the database, and what this role may do there: one row. Without a schema to work in, `schema` is NULL.
SELECT current_database()::text AS database, current_user::text AS role,
    current_setting('server_version') AS version, current_setting('server_version_num')::integer AS version_number,
    (SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()) AS encoding,
    pg_is_in_recovery() AS standby, current_setting('transaction_read_only')::boolean AS read_only,
    (SELECT reset_val FROM pg_settings WHERE name = 'search_path') AS search_path,
    -- Every session of ours searches the schema of temporary tables as the last one.
    CASE WHEN current_schema() NOT LIKE 'pg\_temp%%' THEN current_schema()::text END AS schema,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create

-- pgvector --
-- The extension, if the database has it: version, schema, whether this role may use that schema.
SELECT e.extversion AS version, n.nspname::text AS schema, has_schema_privilege(n.oid, 'USAGE') AS usable
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'

-- available_pgvector --
-- The version of pgvector that the server would add to a database.
SELECT default_version FROM pg_available_extensions WHERE name = 'vector'

-- catalogue_is_here --
-- Whether a catalogue of Twinlens lies in the schema that tables are made in. Each session has its schema
-- there if the search path leads to it; what is seen through the schema of pgvector alone is not meant.
SELECT EXISTS (
    SELECT FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relname = 'twinlens_spaces' AND c.relkind = 'r'
)

-- schemas_with_a_catalogue --
-- Where catalogues of Twinlens lie in this database, on the search path or not.
SELECT n.nspname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'twinlens_spaces' AND c.relkind = 'r'
ORDER BY 1

-- tables_of_others --
-- Tables and views of the catalogue that neither belong to this role nor to one that it is a member of: name, owner.
SELECT c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'v') AND NOT pg_has_role(c.relowner, 'USAGE')
    AND (c.relname IN ('products', 'media', 'image_embeddings') OR starts_with(c.relname, 'twinlens_'))
ORDER BY 1

-- unreadable_tables --
-- Tables and views of the catalogue that this role may not read.
SELECT c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'v') AND NOT has_table_privilege(c.oid, 'SELECT')
    AND (c.relname IN ('products', 'media', 'image_embeddings') OR starts_with(c.relname, 'twinlens_'))
ORDER BY 1

-- taken_names --
-- Which of these names a table, view or index of the schema has already.
SELECT c.relname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relname = ANY (%(names)s)
ORDER BY 1

-- migrations_are_recorded --
-- Whether there is the table that records migrations.
SELECT to_regclass('twinlens_migrations') IS NOT NULL
