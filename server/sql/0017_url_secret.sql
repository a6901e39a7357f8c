-- The secret that signs addresses of pictures is nothing that a serving role reads: of its table, it sees who serves.

-- As before. A right may name a column: SELECT ("name").
CREATE OR REPLACE FUNCTION twinlens_serving_rights() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    VALUES ('products', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('media', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_client_products', 'SELECT', false),
        ('twinlens_spaces', 'SELECT', false),
        ('twinlens_indexes', 'SELECT', false),
        ('twinlens_swept', 'SELECT', false),
        ('twinlens_access', 'SELECT ("servingRoles")', false),
        ('twinlens_rates', 'SELECT, INSERT, UPDATE, DELETE', false),
        ('twinlens_audit', 'INSERT', false),
        ('twinlens_feed_rows', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_idempotency', 'SELECT, INSERT, UPDATE, DELETE', true)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;


-- As before, with rights on columns.
CREATE OR REPLACE FUNCTION twinlens_open_tables() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT t.name, t.rights, t."byClient"
    FROM twinlens_serving_rights() t
    JOIN pg_class c ON c.oid = to_regclass(quote_ident(t.name))
    WHERE EXISTS (
            SELECT FROM unnest(twinlens_serving_roles()) role, string_to_table(t.rights, ', ') one,
                regexp_match(one, '^(\w+)(?: \("(\w+)"\))?$') AS part
            WHERE NOT CASE
                WHEN part[2] IS NULL THEN has_table_privilege(role, c.oid, part[1])
                ELSE has_column_privilege(role, c.oid, part[2], part[1])
            END
        )
        OR t."byClient" AND cardinality(twinlens_serving_roles()) > 0 AND NOT (
            c.relrowsecurity
            AND EXISTS (
                SELECT FROM pg_policy p
                WHERE p.polrelid = c.oid AND p.polname = 'twinlens_all' AND p.polpermissive AND p.polcmd = '*'
                    AND p.polroles = '{0}'
            )
            AND EXISTS (
                SELECT FROM pg_policy p
                WHERE p.polrelid = c.oid AND p.polname = 'twinlens_client' AND NOT p.polpermissive AND p.polcmd = '*'
                    AND p.polroles @> twinlens_serving_roles() AND p.polqual IS NOT NULL
                    AND p.polwithcheck IS NOT NULL
            )
        )
$$;


-- Those that serve already keep what they need: servers of the version before ask for nothing else as that role.
DO $$
DECLARE
    role record;
BEGIN
    FOR role IN SELECT rolname AS name FROM pg_roles WHERE oid = ANY (twinlens_serving_roles()) LOOP
        EXECUTE format('REVOKE SELECT ON twinlens_access FROM %I', role.name);
    END LOOP;
    PERFORM twinlens_isolate_clients();
END $$;
