-- The queue of pictures that another system writes: rows of media with the status pending, which workers embed.

-- One row for each image that is pending, and for each that a worker has set aside as failed, with the reason. Rows come
-- and go by the trigger below, whoever changes media.
CREATE TABLE twinlens_pending (
    "mediaId" text PRIMARY KEY REFERENCES media (id) ON DELETE CASCADE ON UPDATE CASCADE,
    "nextAt" timestamptz DEFAULT now(),    -- when it is to be tried; NULL: not again, it was set aside
    -- Counted before each try: a picture that ends the process that reads it cannot be tried for ever.
    attempts integer NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,    -- tries that ended with their process
    worker integer,    -- who tries it now: a number that is locked (pg_advisory_lock) for as long as the worker lives
    claim xid8,    -- the transaction in which that worker took it: what the row is taken for once more has another one
    code text,    -- of the error that the last try ended in
    reason text,    -- its sentence
    CHECK ((worker IS NULL) = (claim IS NULL))
);
CREATE INDEX twinlens_pending_due ON twinlens_pending ("nextAt", "mediaId") WHERE worker IS NULL;
CREATE INDEX twinlens_pending_taken ON twinlens_pending (worker) WHERE worker IS NOT NULL;

-- What is pending and in no queue, since triggers did not run where it was written, is looked for by this one.
CREATE INDEX media_pending ON media (id) WHERE status = 'pending' AND kind = 'image';


-- Keeps the queue in step with media, and tells the workers.
--
-- Every change of a pending row begins anew with it, also where a worker has taken it: it may be about another picture
-- now, and then what that worker makes of the former one is not stored.
--
-- SECURITY DEFINER: a role that may only write media must not fail on a table that it never heard of.
CREATE FUNCTION twinlens_queue_media() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.status = 'pending' AND NEW.kind = 'image' THEN
        INSERT INTO twinlens_pending ("mediaId") VALUES (NEW.id)
        ON CONFLICT ("mediaId") DO UPDATE
            SET "nextAt" = now(), attempts = 0, deaths = 0, worker = NULL, claim = NULL, code = NULL, reason = NULL;
        PERFORM pg_notify('twinlens_pending', '');
    ELSIF NEW.status = 'failed' AND NEW.kind = 'image' THEN
        UPDATE twinlens_pending SET "nextAt" = NULL, worker = NULL, claim = NULL WHERE "mediaId" = NEW.id;
    ELSE
        DELETE FROM twinlens_pending WHERE "mediaId" = NEW.id;
    END IF;
    RETURN NULL;
END $$;

-- Rows that are ready from the start, as the API writes them, cost nothing more.
CREATE TRIGGER twinlens_queue_new AFTER INSERT ON media FOR EACH ROW
    WHEN (NEW.status = 'pending')
    EXECUTE FUNCTION twinlens_queue_media();
CREATE TRIGGER twinlens_queue_changed AFTER UPDATE ON media FOR EACH ROW
    WHEN (NEW.status = 'pending' OR (OLD.status, OLD.kind) IS DISTINCT FROM (NEW.status, NEW.kind))
    EXECUTE FUNCTION twinlens_queue_media();

INSERT INTO twinlens_pending ("mediaId") SELECT id FROM media WHERE status = 'pending' AND kind = 'image';


-- Removes the vectors of these media from every space but one. What their pictures were before is of no use there; the
-- servers of those spaces, or a re-embedding, find that they are missing.
CREATE FUNCTION twinlens_forget_vectors(media text[], kept integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    space integer;
BEGIN
    FOR space IN SELECT number FROM twinlens_spaces WHERE number <> kept ORDER BY number LOOP
        EXECUTE format('DELETE FROM %I WHERE "mediaId" = ANY ($1)', 'twinlens_space_' || space) USING media;
    END LOOP;
END $$;
