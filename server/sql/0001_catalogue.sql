-- The catalogue, with the names that the older application's schema had.

CREATE TABLE products (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    "clientId" text NOT NULL CHECK (length("clientId") BETWEEN 1 AND 255),
    name text NOT NULL,
    sku text CHECK (length(sku) BETWEEN 1 AND 255),
    "isActive" boolean NOT NULL DEFAULT true,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, "clientId"),
    UNIQUE ("clientId", sku)
);

-- A media names its product together with the client, so that no join can cross clients.
CREATE TABLE media (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    "productId" text NOT NULL,
    "clientId" text NOT NULL,
    kind text NOT NULL DEFAULT 'image' CHECK (kind IN ('image', 'video')),
    status text NOT NULL DEFAULT 'ready' CHECK (status IN ('pending', 'ready', 'failed')),
    "s3Key" text NOT NULL,
    "thumbnailKey" text,
    "contentType" text,
    bytes bigint CHECK (bytes >= 0),
    width integer CHECK (width > 0),    -- width and height after orientation
    height integer CHECK (height > 0),
    "contentDigest" bytea CHECK (octet_length("contentDigest") = 32),    -- SHA-256 of the file's bytes
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY ("productId", "clientId") REFERENCES products (id, "clientId") ON DELETE CASCADE ON UPDATE CASCADE,
    UNIQUE ("productId", "contentDigest")
);

-- "Is this very file in the client's catalogue?": asked by every search by picture. Serves counts by client as well.
CREATE INDEX media_client_digest ON media ("clientId", "contentDigest");


-- Embedding spaces: one row each, and one flat table of vectors each, twinlens_space_<number>.

CREATE TABLE twinlens_spaces (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE CHECK (id ~ '^[0-9a-f]{64}$'),
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),    -- the most that HNSW takes of a halfvec
    model text NOT NULL,
    manifest jsonb NOT NULL,
    "artifactPath" text NOT NULL,
    live boolean NOT NULL DEFAULT false,
    "createdAt" timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX twinlens_spaces_one_live ON twinlens_spaces (live) WHERE live;


-- Fills in what a vector's row repeats from its media and product. The product is locked against change until the
-- inserting transaction ends: an UPDATE products SET "isActive" = false that runs at the same time either is seen here
-- or waits, and then finds the new row. Product before media, the order in which everything here locks.
--
-- SECURITY DEFINER: a role that may only write products must not fail on tables it never heard of.
CREATE FUNCTION twinlens_fill_vector() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    product text;
    owner text;
    shown boolean;
BEGIN
    SELECT "productId" INTO product FROM media WHERE id = NEW."mediaId";
    SELECT "isActive" INTO shown FROM products WHERE id = product FOR SHARE;
    SELECT "clientId", shown AND status = 'ready' AND kind = 'image' INTO owner, shown
      FROM media WHERE id = NEW."mediaId" AND "productId" = product FOR SHARE;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = format('there is no media %L to hold a vector', NEW."mediaId");
    END IF;
    NEW."clientId" := owner;
    NEW.active := shown;
    RETURN NEW;
END $$;


-- Carries a change of products or media, by whomever, into every space.
--
-- Every writer of a vector's row holds its product's lock by then (an UPDATE of the product, the lock that the media's
-- branch takes, or twinlens_fill_vector's), so the last of two that overlap sees what the first one did.
CREATE FUNCTION twinlens_follow_catalogue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    space integer;
BEGIN
    IF NOT EXISTS (SELECT FROM changed) THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME = 'media' THEN
        PERFORM FROM products WHERE id IN (SELECT "productId" FROM changed) ORDER BY id FOR SHARE;
    END IF;
    FOR space IN SELECT number FROM twinlens_spaces ORDER BY number LOOP
        EXECUTE format(
            $update$
            UPDATE %I AS v
               SET "clientId" = m."clientId", active = p."isActive" AND m.status = 'ready' AND m.kind = 'image'
              FROM changed
              JOIN %s
             WHERE v."mediaId" = m.id
               AND (v."clientId" <> m."clientId"
                    OR v.active <> (p."isActive" AND m.status = 'ready' AND m.kind = 'image'))
            $update$,
            'twinlens_space_' || space,
            CASE TG_TABLE_NAME
                WHEN 'products' THEN 'products p ON p.id = changed.id JOIN media m ON m."productId" = p.id'
                ELSE 'media m ON m.id = changed.id JOIN products p ON p.id = m."productId"'
            END
        );
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER twinlens_follow AFTER UPDATE ON products
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION twinlens_follow_catalogue();
CREATE TRIGGER twinlens_follow AFTER UPDATE ON media
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION twinlens_follow_catalogue();


-- Makes a space's row and table. The caller sees to it that two do not register the same one at once.
--
-- space has no default on purpose: whoever writes a vector says of which space it is, and the CHECK answers.
-- toast_tuple_target keeps vectors of more than about 1,000 dimensions in the row; out of line, a scan takes five times
-- as long.
CREATE FUNCTION twinlens_register_space(id text, dimensions integer, model text, manifest jsonb, path text)
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
            embedding halfvec(%3$s) NOT NULL CHECK (l2_norm(embedding) BETWEEN 0.999 AND 1.001)
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


-- Makes a registered space the live one: the one that image_embeddings shows.
CREATE FUNCTION twinlens_make_live(space integer)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE twinlens_spaces SET live = false WHERE live AND number <> space;
    UPDATE twinlens_spaces SET live = true WHERE number = space;
    IF NOT FOUND THEN
        RAISE 'there is no embedding space number %', space;
    END IF;
    EXECUTE format(
        'CREATE OR REPLACE VIEW image_embeddings WITH (security_invoker = true) AS '
        'SELECT "mediaId", embedding::vector AS embedding FROM %I',
        'twinlens_space_' || space
    );
END $$;


-- What the older application reads. Empty until a space is live. It is never written by hand: a vector that came from
-- another pipeline than the queries' would rank at random, and nothing would say so.
CREATE VIEW image_embeddings WITH (security_invoker = true) AS
    SELECT NULL::text AS "mediaId", NULL::vector AS embedding WHERE false;

CREATE FUNCTION twinlens_refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE feature_not_supported USING
        MESSAGE = 'image_embeddings is not written by hand: every vector must come from the model that answers the '
                  'queries',
        HINT = 'Send the picture to the HTTP API, POST /v1/products/{id}/media, and its vector is made and stored; '
               'DELETE /v1/media/{id} removes both.';
END $$;

-- INSTEAD OF alone is silent when no row matches; BEFORE STATEMENT alone does not let COPY in to be refused.
CREATE TRIGGER twinlens_refuse_row INSTEAD OF INSERT OR UPDATE OR DELETE ON image_embeddings
    FOR EACH ROW EXECUTE FUNCTION twinlens_refuse_write();
CREATE TRIGGER twinlens_refuse_statement BEFORE INSERT OR UPDATE OR DELETE ON image_embeddings
    FOR EACH STATEMENT EXECUTE FUNCTION twinlens_refuse_write();
