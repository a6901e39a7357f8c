-- Every statement of isolation.py: a name, a sentence, named parameters.

-- login --
-- Who has logged in, and whether row-level security would hold them: owners, superusers and some others pass by it.
SELECT r.rolname::text AS name, current_setting('server_version_num')::integer AS version, r.rolsuper AS superuser,
    r.rolbypassrls AS bypasses, r.rolsuper OR r.rolcreaterole AS may_make,
    EXISTS (
        SELECT FROM pg_class c
        WHERE c.oid IN (to_regclass('products'), to_regclass('media'), to_regclass('twinlens_access'))
            AND pg_has_role(c.relowner, 'MEMBER')
    ) AS owner
FROM pg_roles r
WHERE r.rolname = current_user

-- role --
-- A role: whether row-level security would not hold it, and whether who has logged in may take it on.
SELECT r.rolsuper OR r.rolbypassrls OR EXISTS (
        SELECT FROM pg_class c
        WHERE c.oid IN (to_regclass('products'), to_regclass('media'), to_regclass('twinlens_access'))
            AND pg_has_role(r.oid, c.relowner, 'MEMBER')
    ) AS passes,
    pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
        AS may
FROM pg_roles r
WHERE r.rolname = %(role)s

-- make_role --
-- A role that owns nothing, bypasses nothing and cannot log in.
CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT

-- grant_role --
-- Who has logged in may take it on, and has none of its rights before.
GRANT {role} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE

-- grant_role_plainly --
-- The same in PostgreSQL 15.
GRANT {role} TO CURRENT_USER

-- serving --
-- The roles that have their rights and policies, the one that has logged in first.
SELECT r.rolname::text
FROM pg_roles r, twinlens_access a
WHERE r.rolname = ANY (a."servingRoles")
ORDER BY r.rolname <> current_user, r.rolname <> %(role)s, r.rolname

-- open_tables --
-- Tables that lack their policies, or the rights on them.
SELECT name FROM twinlens_open_tables() ORDER BY name

-- serve_as --
-- Give a role its rights, and the tables their policies.
SELECT twinlens_serve_as(%(role)s)
