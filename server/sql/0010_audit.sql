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
