-- Row-level security beneath the predicates: the role that serves sees and writes the rows of one client at a time.

-- The roles that serve, or have served. The policies below are for these alone: for every other role, with rights of its
-- own, row-level security changes nothing.
ALTER TABLE twinlens_access ADD COLUMN "servingRoles" text[] NOT NULL DEFAULT '{}';


-- The products of the client that the transaction names, for searches that filter by attributes.
--
-- Under a policy such a filter cannot use its index, since PostgreSQL does not trust the operators of jsonb to keep
-- secret what they see: it took 35 times as long for 100,000 products. The view reads with its owner's rights, so no
-- policy is in the way. ANY, not plain equality, which PostgreSQL would join with the policies of the other tables in
-- the query, and then the index would be lost again. It names the columns that filters ask for and no others: an older
-- application could neither drop nor change a column of its own that a view reads.
CREATE VIEW twinlens_client_products AS
    SELECT id, "apiId", attributes FROM products WHERE "clientId" = ANY (ARRAY[current_setting('twinlens.client', true)]);


-- What a serving role may do, and on which tables it does so for one client at a time. A migration that makes a table
-- that servers use replaces this function.
CREATE FUNCTION twinlens_serving_rights() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    VALUES ('products', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('media', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_client_products', 'SELECT', false),
        ('twinlens_spaces', 'SELECT', false),
        ('twinlens_indexes', 'SELECT', false),
        ('twinlens_swept', 'SELECT', false),
        ('twinlens_access', 'SELECT', false),
        -- Made by the next migrations; what is not there yet is left out.
        ('twinlens_rates', 'SELECT, INSERT, UPDATE, DELETE', false),
        ('twinlens_audit', 'INSERT', false)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;


-- The serving roles that this cluster has, as the number of each.
CREATE FUNCTION twinlens_serving_roles() RETURNS oid[]
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT array(SELECT r.oid FROM pg_roles r, twinlens_access a WHERE r.rolname = ANY (a."servingRoles") ORDER BY r.oid)
$$;


-- The tables whose rights or policies are not what they are to be for the serving roles.
--
-- Two policies a table, since one that is restrictive shows nothing by itself: the first lets every role see what its
-- rights allow, the second narrows the serving roles to the client that their transaction names. Never FORCE ROW LEVEL
-- SECURITY: the owner's triggers, which carry changes into every space, would change nothing then, silently.
CREATE FUNCTION twinlens_open_tables() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT t.name, t.rights, t."byClient"
    FROM twinlens_serving_rights() t
    JOIN pg_class c ON c.oid = to_regclass(quote_ident(t.name))
    WHERE EXISTS (
            SELECT FROM unnest(twinlens_serving_roles()) role, string_to_table(t.rights, ', ') one
            WHERE NOT has_table_privilege(role, c.oid, one)
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


-- Gives the serving roles their rights, and puts the policies on the tables, wherever that is not so yet.
CREATE FUNCTION twinlens_isolate_clients() RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    one record;
    roles text;
    mine CONSTANT text := $mine$("clientId" = current_setting('twinlens.client', true))$mine$;
BEGIN
    SELECT string_agg(quote_ident(rolname), ', ') INTO roles FROM pg_roles WHERE oid = ANY (twinlens_serving_roles());
    FOR one IN SELECT * FROM twinlens_open_tables() LOOP
        EXECUTE format('GRANT %s ON %I TO %s', one.rights, one.name, roles);
        IF one."byClient" THEN
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one.name);
            EXECUTE format('DROP POLICY IF EXISTS twinlens_all ON %I', one.name);
            EXECUTE format('CREATE POLICY twinlens_all ON %I USING (true) WITH CHECK (true)', one.name);
            EXECUTE format('DROP POLICY IF EXISTS twinlens_client ON %I', one.name);
            EXECUTE format(
                'CREATE POLICY twinlens_client ON %I AS RESTRICTIVE TO %s USING %s WITH CHECK %s',
                one.name, roles, mine, mine
            );
        END IF;
    END LOOP;
END $$;


-- Has a role serve from now on. It is for the owner of the tables, and may be called any number of times.
CREATE FUNCTION twinlens_serve_as(role text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    schema record;
BEGIN
    UPDATE twinlens_access SET "servingRoles" = array_append("servingRoles", role) WHERE role <> ALL ("servingRoles");
    FOR schema IN
        SELECT n.oid, n.nspname FROM pg_namespace n
        WHERE NOT has_schema_privilege(role, n.oid, 'USAGE') AND (
            n.oid = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('twinlens_access'))
            OR n.oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'vector')
        )
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', schema.nspname, role);
    END LOOP;
    PERFORM twinlens_isolate_clients();
END $$;


-- As before; and the serving roles see of the new table, too, the rows of one client alone.
CREATE OR REPLACE FUNCTION twinlens_register_space(
    id text, dimensions integer, model text, manifest jsonb, path text
)
RETURNS integer LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    space integer;
    name text;
BEGIN
    INSERT INTO twinlens_spaces (id, dimensions, model, manifest, "artifactPath")
         VALUES (id, dimensions, model, manifest, path)
      RETURNING number INTO space;
    name := 'twinlens_space_' || space;
    EXECUTE format(
        $create$
        CREATE TABLE %1$I (
            space integer NOT NULL CHECK (space = %2$s),
            "mediaId" text PRIMARY KEY REFERENCES media (id) ON DELETE CASCADE ON UPDATE CASCADE,
            "clientId" text NOT NULL,
            active boolean NOT NULL,
            embedding halfvec(%3$s) NOT NULL CHECK (l2_norm(embedding) BETWEEN 0.999 AND 1.001),
            blank boolean NOT NULL DEFAULT false,
            reading smallint NOT NULL DEFAULT 0
        ) WITH (toast_tuple_target = 8160)
        $create$,
        name, space, dimensions
    );
    EXECUTE format('CREATE INDEX %I ON %I ("clientId") WHERE active', name || '_client', name);
    EXECUTE format(
        'CREATE TRIGGER twinlens_fill BEFORE INSERT ON %I FOR EACH ROW EXECUTE FUNCTION twinlens_fill_vector()', name
    );
    PERFORM twinlens_isolate_clients();
    RETURN space;
END $$;
