-- Embedding spaces at run time: which media a space lacks, found without looking at each; what could not be embedded;
-- what a space has been; and the way out of the database.


-- The transaction that made a media one to be embedded: by adding it, or by making it a ready image. All of those below
-- pg_snapshot_xmin are committed and visible, or gone; so whoever has looked at everything once need only look from
-- there on, and cannot miss one that was in flight. A sequence would not do: a lower number may be committed later.
--
-- What is there already gets 0, which takes no rewriting of the table. After a restore from a dump the numbers may lie
-- above those of the new cluster, which is why whoever looks for what is new stops at pg_snapshot_xmax.
ALTER TABLE media ADD COLUMN revision xid8 NOT NULL DEFAULT '0';
ALTER TABLE media ALTER COLUMN revision SET DEFAULT pg_current_xact_id();

CREATE INDEX media_revision ON media (revision, id) WHERE status = 'ready' AND kind = 'image';

CREATE FUNCTION twinlens_revise_media() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE TRIGGER twinlens_revise BEFORE UPDATE ON media FOR EACH ROW
    WHEN ((OLD.status, OLD.kind) IS DISTINCT FROM (NEW.status, NEW.kind))
    EXECUTE FUNCTION twinlens_revise_media();


-- When a space last stopped being the live one; NULL: it never was, or it is. One that was is kept as the way back, and
-- servers that run in it go on until it is dropped.
ALTER TABLE twinlens_spaces ADD COLUMN "retiredAt" timestamptz;

CREATE OR REPLACE FUNCTION twinlens_make_live(space integer)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE twinlens_spaces SET live = false, "retiredAt" = now() WHERE live AND number <> space;
    UPDATE twinlens_spaces SET live = true, "retiredAt" = NULL WHERE number = space;
    IF NOT FOUND THEN
        RAISE 'there is no embedding space number %', space;
    END IF;
    EXECUTE format(
        'CREATE OR REPLACE VIEW image_embeddings WITH (security_invoker = true) AS '
        'SELECT "mediaId", embedding::vector AS embedding FROM %I',
        'twinlens_space_' || space
    );
END $$;

-- Takes a space out of the database with its vectors, its indexes and what is recorded of it; not the live one.
CREATE FUNCTION twinlens_drop_space(space integer)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM twinlens_spaces WHERE number = space AND NOT live;
    IF NOT FOUND THEN
        RAISE 'there is no embedding space number % that is not live', space;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS %I', 'twinlens_space_' || space);
END $$;


-- Media that could not be embedded in a space, and why. Tried again now and then; a vector ends it.
CREATE TABLE twinlens_unreadable (
    space integer NOT NULL REFERENCES twinlens_spaces (number) ON DELETE CASCADE,
    "mediaId" text NOT NULL REFERENCES media (id) ON DELETE CASCADE ON UPDATE CASCADE,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY ("mediaId", space)
);
CREATE INDEX twinlens_unreadable_space ON twinlens_unreadable (space, at);
