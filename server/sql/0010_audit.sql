-- The audit: who wrote what, from where, and what came of it. Rows are only added, and removed when they are old.

CREATE TABLE twinlens_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),    -- when the request came in, or the command ran
    "keyId" text,          -- of the caller's key; as it was presented, and not proven, where the key was refused
    operator text,         -- the user of the operating system, where a command was run
    "clientId" text,
    address inet,          -- of the caller
    action text NOT NULL,  -- a method and a route, such as PUT /v1/products/{product_id}, or a command: keys create
    object text,           -- ids as the API shows them, from the outer one to the inner one, with / in between
    status smallint,       -- of the answer; NULL for a command, and where the caller got none
    code text,             -- of the error, where the answer was one
    "requestId" text,
    count integer NOT NULL DEFAULT 1 CHECK (count > 0)    -- above 1: so many of a kind, which are not kept one by one
);
-- The audit of a client is read by time, and so is what is old enough to be removed.
CREATE INDEX twinlens_audit_by_client ON twinlens_audit ("clientId", at);
CREATE INDEX twinlens_audit_by_time ON twinlens_audit (at);


-- As before, with the tables of limits and of the audit. A serving role adds rows to the audit, and reads none.
CREATE OR REPLACE FUNCTION twinlens_serving_rights() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    VALUES ('products', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('media', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_client_products', 'SELECT', false),
        ('twinlens_spaces', 'SELECT', false),
        ('twinlens_indexes', 'SELECT', false),
        ('twinlens_swept', 'SELECT', false),
        ('twinlens_access', 'SELECT', false),
        ('twinlens_rates', 'SELECT, INSERT, UPDATE, DELETE', false),
        ('twinlens_audit', 'INSERT', false)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;
