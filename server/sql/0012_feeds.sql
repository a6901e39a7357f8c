-- What each feed brought: its products and pictures, so that the next run of the feed finds what has changed.

-- A row of a feed is known by its product and its place: the how-manyth picture of the product in that feed it is. Place
-- 0 is the product itself. What somebody deletes in the catalogue takes its rows along, and the feed brings it again.
CREATE TABLE twinlens_feed_rows (
    feed text NOT NULL CHECK (length(feed) BETWEEN 1 AND 255),
    "clientId" text NOT NULL,
    "productId" text NOT NULL,
    place integer NOT NULL CHECK (place >= 0),
    "mediaId" text REFERENCES media (id) ON DELETE CASCADE ON UPDATE CASCADE,
    made boolean NOT NULL,    -- whether the feed made it, or found it there; only what a feed made is ever taken out by it
    named boolean NOT NULL DEFAULT true,    -- false: another picture has taken its place, and it is about to be removed
    -- Where the picture was read, and what tells that it is the same file without reading it. NULL: it must be read.
    source text,
    size bigint,
    stamp text,
    CHECK ((place = 0) = ("mediaId" IS NULL)),
    -- Begins with the product, by which its deletion looks for the rows.
    UNIQUE NULLS NOT DISTINCT ("productId", feed, place, "mediaId"),
    FOREIGN KEY ("productId", "clientId") REFERENCES products (id, "clientId") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX twinlens_feed_rows_media ON twinlens_feed_rows ("mediaId") WHERE "mediaId" IS NOT NULL;
-- What is about to be removed: hardly ever anything.
CREATE INDEX twinlens_feed_rows_left ON twinlens_feed_rows (feed) WHERE NOT named;
-- A feed's rows in the order in which they are compared with the feed, client by client.
CREATE INDEX twinlens_feed_rows_feed ON twinlens_feed_rows (feed, "clientId", "productId");


-- As before, with the new table: whoever writes as a serving role sees the rows of one client alone.
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
        ('twinlens_feed_rows', 'SELECT, INSERT, UPDATE, DELETE', true)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;
