-- Writes that are made once however often they are sent, and pictures that are replaced under the id that they have.

-- The answers to writes that came with an Idempotency-Key: who sends the same request again gets the answer that is here.
-- The row is there before the write begins, so that a second one finds it under way; the answer comes with the write's
-- own transaction, so that there is neither one without the other.
CREATE TABLE twinlens_idempotency (
    "clientId" text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),    -- SHA-256 of what was asked
    token uuid NOT NULL DEFAULT gen_random_uuid(),    -- of the request that may write the answer
    status smallint,    -- of the answer; NULL: the request is under way
    body bytea CHECK (octet_length(body) <= 4000000),
    etag text,
    -- The row counts until then. Of a request that is under way, that is after its deadline: whoever comes then takes its
    -- place, and the first one, should it go on after all, writes nothing any more.
    until timestamptz NOT NULL,
    PRIMARY KEY ("clientId", key)
);
CREATE INDEX twinlens_idempotency_until ON twinlens_idempotency (until);


-- A media that has another picture has no vector of it in any space, until one is made. A change of the key alone is
-- none: bytes that were moved to another place are the same bytes.
--
-- SECURITY DEFINER: whoever serves may only add vectors.
CREATE FUNCTION twinlens_forget_vectors() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    space integer;
BEGIN
    FOR space IN SELECT number FROM twinlens_spaces ORDER BY number LOOP
        EXECUTE format('DELETE FROM %I WHERE "mediaId" = $1', 'twinlens_space_' || space) USING NEW.id;
    END LOOP;
    DELETE FROM twinlens_unreadable WHERE "mediaId" = NEW.id;
    DELETE FROM twinlens_unread WHERE "mediaId" = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER twinlens_forget AFTER UPDATE ON media FOR EACH ROW
    WHEN (OLD."s3Key" <> NEW."s3Key" AND OLD."contentDigest" IS DISTINCT FROM NEW."contentDigest")
    EXECUTE FUNCTION twinlens_forget_vectors();


-- As before, with the new table.
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
        ('twinlens_audit', 'INSERT', false),
        ('twinlens_feed_rows', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_idempotency', 'SELECT, INSERT, UPDATE, DELETE', true)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;
