-- Lists of products, page by page, and of those that have changed: readers who keep in step miss no change.

-- A time that has not come would keep its product out of the lists of changes until then.
UPDATE products SET "updatedAt" = now() WHERE "updatedAt" > now();

CREATE INDEX products_updated
    ON products ("clientId", "updatedAt", (CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END));
-- Mostly few. The others are found in the order of all.
CREATE INDEX products_inactive
    ON products ("clientId", (CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END)) WHERE NOT "isActive";


-- "updatedAt" is when the product last changed, by whomever: also where a statement says nothing of it, or something
-- else. It stays where nothing but itself would change. By the clock and not by the transaction's time, as readers need
-- it (see below); and never the same twice for one product, so that it names a version.
CREATE FUNCTION twinlens_stamp_product() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW."updatedAt" := OLD."updatedAt";
        IF NEW *= OLD THEN
            RETURN NEW;
        END IF;
    END IF;
    NEW."updatedAt" := clock_timestamp();
    IF TG_OP = 'UPDATE' AND NEW."updatedAt" = OLD."updatedAt" THEN
        NEW."updatedAt" := NEW."updatedAt" + interval '1 microsecond';
    END IF;
    RETURN NEW;
END $$;

-- Triggers of one kind go by their names. An older application often has one of its own that sets "updatedAt" to the
-- transaction's time; this one comes after it.
CREATE TRIGGER zz_twinlens_stamp BEFORE INSERT OR UPDATE ON products
    FOR EACH ROW EXECUTE FUNCTION twinlens_stamp_product();


-- Says that a transaction writes products, and since when it may have done so, until it has ended: as an advisory lock
-- that all of them share, whose second number is the second in which it began, counted from the year 2020. The first
-- one is LOCKS_OF_PRODUCTS of locks.py.
--
-- Transactions do not end in the order of the times that they write. Readers of changes therefore read up to the
-- earliest begin among those that still write, and no further. Before any row is stamped, its transaction has the lock;
-- so whoever looks at the clock first and then at the locks, and finds no lock of a transaction, knows that all that it
-- is going to write is stamped later than that look at the clock.
CREATE FUNCTION twinlens_announce_writer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(
        1953982843, floor(extract(epoch FROM transaction_timestamp()) - 1577836800)::integer
    );
    RETURN NULL;
END $$;

CREATE TRIGGER twinlens_announce BEFORE INSERT OR UPDATE ON products
    FOR EACH STATEMENT EXECUTE FUNCTION twinlens_announce_writer();
