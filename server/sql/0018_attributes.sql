-- What the attributes of a client's products are: where a text is stored, what filters compare it as.

CREATE TABLE twinlens_attributes (
    "clientId" text NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    type text NOT NULL CHECK (type IN ('number', 'text', 'boolean', 'date', 'list')),
    PRIMARY KEY ("clientId", name)
);


-- As before, with the new table.
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
        ('twinlens_idempotency', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_attributes', 'SELECT, INSERT, UPDATE, DELETE', true)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;


-- Those that serve already have their rights on it, and are held to one client there, from now on.
DO $$
BEGIN
    PERFORM twinlens_isolate_clients();
END $$;
