-- How each vector's picture was read: whether it is blank, and by which version of the readers.

-- Both belong to the vector, not to the media: what lies under transparency is said by the space's preprocessing, so a
-- white logo may be blank in one space and not in another. Adding a column with a constant default rewrites no table.
--
-- blank: the model saw one colour throughout, but for what a lossy format makes of it. reading: the version of the
-- readers that read the picture; 0 for every release that wrote none, also one that still runs beside a newer one.
DO $$
DECLARE
    space integer;
BEGIN
    FOR space IN SELECT number FROM twinlens_spaces ORDER BY number LOOP
        EXECUTE format(
            'ALTER TABLE %I ADD COLUMN blank boolean NOT NULL DEFAULT false, '
            'ADD COLUMN reading smallint NOT NULL DEFAULT 0',
            'twinlens_space_' || space
        );
    END LOOP;
END $$;

-- The same as before, with the two columns.
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
    RETURN space;
END $$;


-- How far the servers of a space have looked again at what an older version of the readers has read: all media up to
-- this one, by transaction and id as in media_revision. What they found unchanged is not written, so a vector's own
-- reading may stay behind.
CREATE TABLE twinlens_readings (
    space integer PRIMARY KEY REFERENCES twinlens_spaces (number) ON DELETE CASCADE,
    reading smallint NOT NULL,    -- the version that they look with
    revision xid8 NOT NULL DEFAULT '0',
    "mediaId" text NOT NULL DEFAULT ''
);

-- Media that could not be looked at again, and why; they keep the vectors that they have. Tried again now and then.
CREATE TABLE twinlens_unread (
    space integer NOT NULL REFERENCES twinlens_spaces (number) ON DELETE CASCADE,
    "mediaId" text NOT NULL REFERENCES media (id) ON DELETE CASCADE ON UPDATE CASCADE,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY ("mediaId", space)
);
CREATE INDEX twinlens_unread_space ON twinlens_unread (space, at);
