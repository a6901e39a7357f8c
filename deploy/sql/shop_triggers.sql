-- An example: triggers that carry the products and pictures of a shop's own schema into Twinlens' tables.
--
-- Copy it, and change what is the shop's: the schema "shop" with its tables "articles" and "pictures". Twinlens' tables
-- are those of the schema "public" here. Run it as the owner of Twinlens' tables, who needs the right TRIGGER on the two
-- tables of the shop and USAGE on its schema; in one transaction:
--
--     psql "$DATABASE_URL" --single-transaction --set ON_ERROR_STOP=1 --file shop_triggers.sql
--
-- The shop's roles need no right on Twinlens' tables, since the functions run with the rights of their owner. A function
-- that fails makes the shop's own statement fail, so each does what cannot fail: the shop's number is an attribute and
-- no SKU, for a SKU must be unique within its client.

-- What is sold: a product of the same id. Ids must be unique among all clients, hence the prefix.
CREATE OR REPLACE FUNCTION public.shop_article_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.products WHERE id = 'shop-' || OLD.number;    -- with its media and their vectors
        RETURN NULL;
    END IF;
    INSERT INTO public.products AS p (id, "clientId", name, "isActive", attributes)
    VALUES (
        'shop-' || NEW.number, NEW.tenant, NEW.title, NEW.on_sale,
        jsonb_strip_nulls(jsonb_build_object('number', NEW.number, 'category', NEW.category, 'price', NEW.price))
    )
    ON CONFLICT (id) DO UPDATE
        SET "clientId" = excluded."clientId", name = excluded.name, "isActive" = excluded."isActive",
            attributes = excluded.attributes, "updatedAt" = now()
        WHERE (p."clientId", p.name, p."isActive", p.attributes)
            IS DISTINCT FROM (excluded."clientId", excluded.name, excluded."isActive", excluded.attributes);
    RETURN NULL;
END $$;

-- A picture: a media that is pending until a worker has embedded it. Its key is where its bytes lie in the store of
-- pictures, and they are there before the row. A picture that is replaced is pending once more.
CREATE OR REPLACE FUNCTION public.shop_picture_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.media WHERE id = 'shop-' || OLD.id;
        RETURN NULL;
    END IF;
    INSERT INTO public.media AS m (id, "productId", "clientId", "s3Key", status)
    SELECT 'shop-' || NEW.id, p.id, p."clientId", NEW.path, 'pending'
    FROM public.products p
    WHERE p.id = 'shop-' || NEW.article
    ON CONFLICT (id) DO UPDATE
        SET "productId" = excluded."productId", "clientId" = excluded."clientId", "s3Key" = excluded."s3Key",
            -- Of a picture that moves to another product nothing is embedded again. "version" is what the shop counts
            -- up when it writes other bytes under the same path.
            status = CASE
                WHEN m."s3Key" IS DISTINCT FROM excluded."s3Key" OR TG_OP = 'UPDATE' AND NEW.version <> OLD.version
                THEN 'pending' ELSE m.status
            END;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER to_twinlens AFTER INSERT OR UPDATE OR DELETE ON shop.articles
    FOR EACH ROW EXECUTE FUNCTION public.shop_article_changed();
CREATE OR REPLACE TRIGGER to_twinlens AFTER INSERT OR UPDATE OR DELETE ON shop.pictures
    FOR EACH ROW EXECUTE FUNCTION public.shop_picture_changed();

-- What is there already: an update that changes nothing has the triggers carry it over. Once in a while it also puts
-- right what was written while triggers were off; it embeds nothing twice.
UPDATE shop.articles SET number = number;
UPDATE shop.pictures SET id = id;
