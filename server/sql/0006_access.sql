-- Who may call: keys, whether callers need one, and what signs the addresses of pictures.

-- One row. Every change of it, of keys and of limits gives it another version, which each server looks at. The version is
-- random and no count: a database that was restored from a backup, or a standby that took over without the last changes,
-- could count up to a number that a server has seen with other keys.
CREATE TABLE twinlens_access (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    "keysOn" boolean NOT NULL DEFAULT false,    -- whether callers need a key
    version uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Signs addresses of pictures that work without a key. 244 random bits; gen_random_uuid() is cryptographically strong.
    "urlSecret" bytea NOT NULL
        DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
INSERT INTO twinlens_access DEFAULT VALUES;

-- A key itself is shown once and kept nowhere: from neither of these can it be found out.
CREATE TABLE twinlens_keys (
    id text PRIMARY KEY CHECK (id ~ '^[a-z0-9]{12}$'),    -- in the clear: logs may hold it
    name text CHECK (length(name) BETWEEN 1 AND 200),
    "clientId" text CHECK (length("clientId") BETWEEN 1 AND 255),    -- NULL: every client's, which an admin key is
    scopes text[] NOT NULL CHECK (scopes <@ '{search,read,write,admin}' AND cardinality(scopes) > 0),
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),    -- SHA-256 of the key
    -- What verifies search keys that are derived from this one: HMAC-SHA256 with the key. Whoever reads it can make
    -- search keys, but cannot use the key itself. NULL where the key may not search.
    "searchSecret" bytea CHECK (octet_length("searchSecret") = 32),
    limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "expiresAt" timestamptz,
    "revokedAt" timestamptz,
    replaces text REFERENCES twinlens_keys (id) ON DELETE SET NULL,    -- the key that this one was rotated from
    CHECK ('admin' = ANY (scopes) OR "clientId" IS NOT NULL),
    CHECK ('admin' <> ALL (scopes) OR "clientId" IS NULL)
);

-- What a client may ask for in all, beside the limits of its keys.
CREATE TABLE twinlens_limits (
    "clientId" text PRIMARY KEY CHECK (length("clientId") BETWEEN 1 AND 255),
    limits jsonb NOT NULL CHECK (jsonb_typeof(limits) = 'object')
);

-- Tells the servers of a change, when it is committed.
CREATE FUNCTION twinlens_access_renewed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.version := gen_random_uuid();
    PERFORM pg_notify('twinlens_access', '');
    RETURN NEW;
END $$;

CREATE FUNCTION twinlens_access_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE twinlens_access SET version = version;    -- its own trigger gives it another one
    RETURN NULL;
END $$;

CREATE TRIGGER twinlens_renewed BEFORE UPDATE ON twinlens_access
    FOR EACH ROW EXECUTE FUNCTION twinlens_access_renewed();
CREATE TRIGGER twinlens_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON twinlens_keys
    FOR EACH STATEMENT EXECUTE FUNCTION twinlens_access_changed();
CREATE TRIGGER twinlens_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON twinlens_limits
    FOR EACH STATEMENT EXECUTE FUNCTION twinlens_access_changed();
