-- Every statement of legacy.py: a name, a sentence, named parameters.

-- find_spaces --
-- The table that only a Twinlens database has.
SELECT to_regclass('twinlens_spaces')

-- list_tables --
-- Which tables of these names exist, as the search path finds them: name and kind.
SELECT c.relname, c.relkind::text
FROM pg_class c
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS name)

-- list_columns --
-- The columns of these tables with their types.
SELECT c.relname AS "table", a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS name)
ORDER BY c.relname, a.attnum
