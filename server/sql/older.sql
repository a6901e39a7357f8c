-- What older.py asks: a name, a sentence, named parameters.

-- find_spaces --
-- The table that only a Twinlens database has.
SELECT to_regclass('twinlens_spaces')

-- list_tables --
-- Which of the names there are, as the search path finds them, and of what kind.
SELECT c.relname, c.relkind::text
FROM pg_class c
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS name)

-- list_columns --
-- The columns of these tables with their types.
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS name)
ORDER BY c.relname, a.attnum
