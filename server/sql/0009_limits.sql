-- Limits that all servers of a database count together.

-- What is left of each allowance that is in use, where TWINLENS_LIMITS is exact. Nothing of it needs to outlast a
-- crash, so it is not logged, and a standby does not have it.
CREATE UNLOGGED TABLE twinlens_rates (
    subject text NOT NULL,    -- a key, a client, or a search key
    kind text NOT NULL,    -- requests, pictures or bytes
    "fullAt" double precision NOT NULL,    -- when the allowance is full again, in seconds since 1970
    PRIMARY KEY (subject, kind)
) WITH (fillfactor = 50);

-- Servers rely on it that limits are numbers above 0, whoever writes them.
ALTER TABLE twinlens_keys ADD CONSTRAINT twinlens_limits_are_numbers
    CHECK (NOT jsonb_path_exists(limits, '$.* ? (@.type() != "number" || @ <= 0)'));
ALTER TABLE twinlens_limits ADD CONSTRAINT twinlens_limits_are_numbers
    CHECK (NOT jsonb_path_exists(limits, '$.* ? (@.type() != "number" || @ <= 0)'));
