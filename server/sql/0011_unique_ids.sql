-- The indexes by which the API finds products and media. Writers wait until they are built; readers do not.

ALTER TABLE products VALIDATE CONSTRAINT "products_apiId_check";
ALTER TABLE media VALIDATE CONSTRAINT "media_apiId_check";

-- CASE, since under row-level security PostgreSQL uses an index for a condition only if nothing in it could tell of rows
-- that are hidden; it knows that of CASE and IS NULL, and not of coalesce.
CREATE UNIQUE INDEX products_api_id ON products ("clientId", (CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END));
CREATE UNIQUE INDEX media_api_id ON media ("clientId", (CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END));

-- What an index computes is counted by ANALYZE alone, which nobody runs on tables that do not change. Empty tables are
-- left alone: it would note for good that they are.
DO $$
BEGIN
    IF EXISTS (SELECT FROM products) THEN
        ANALYZE products, media;
    END IF;
END $$;
