-- Ids of products and media are unique within a client, and no longer in the entire table.

-- The id in the API, where it is not the row's `id`: another client's row had that when this one was made. NULL: they are
-- the same, which takes no rewriting of the tables. SQL of one's own finds the API's id as coalesce("apiId", id).
--
-- The constraints are looked at by 0011_unique_ids: this migration keeps readers away, and must be over at once.
ALTER TABLE products
    ADD COLUMN "apiId" text,
    ADD CONSTRAINT "products_apiId_check" CHECK (length("apiId") BETWEEN 1 AND 255) NOT VALID;
ALTER TABLE media
    ADD COLUMN "apiId" text,
    ADD CONSTRAINT "media_apiId_check" CHECK (length("apiId") BETWEEN 1 AND 255) NOT VALID;
