-- Every statement of lists.py: a name, a sentence, named parameters. The parts in braces that are not here are those of
-- queries.sql.

-- settled --
-- Up to when every change of a product is known to readers who begin their snapshot after this: until now, or until the
-- begin of the oldest transaction that is writing products (0013_products_in_step.sql). The clock is read first: a
-- statement begins before it looks at anything.
SELECT least(
    statement_timestamp(),
    (
        SELECT to_timestamp(1577836800 + min(l.objid::bigint))
        FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid = %(locks)s AND l.objsubid = 2
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    )
)

-- products_by_id --
-- The client's products by id, from behind one of them.
SELECT {product_columns}
FROM products p
WHERE p."clientId" = %(client_id)s
    AND (%(after_id)s::text IS NULL OR {product_api_id} > %(after_id)s::text)
    AND (%(is_active)s::boolean IS NULL OR p."isActive" = %(is_active)s::boolean)
    AND (%(sku)s::text IS NULL OR p.sku = %(sku)s::text)
    {passing}
ORDER BY {product_api_id}
LIMIT %(scanned)s

-- products_by_change --
-- Those that have changed since a time and before another one, by when they did.
SELECT {product_columns}
FROM products p
WHERE p."clientId" = %(client_id)s
    AND p."updatedAt" >= %(since)s AND p."updatedAt" < %(until)s
    AND (
        %(after)s::timestamptz IS NULL
        OR (p."updatedAt", {product_api_id}) > (%(after)s::timestamptz, %(after_id)s::text)
    )
    AND (%(is_active)s::boolean IS NULL OR p."isActive" = %(is_active)s::boolean)
    AND (%(sku)s::text IS NULL OR p.sku = %(sku)s::text)
    {passing}
ORDER BY p."updatedAt", {product_api_id}
LIMIT %(scanned)s

-- order_of_products_by_id --
-- The order of the first of them.
l.id

-- order_of_products_by_change --
-- That of the second.
l.updated_at, l.id

-- with_attributes --
-- Of the first ones of a list, those whose attributes pass.
SELECT l.*
FROM ({page}) l
WHERE l.attributes @@ %(attributes)s::jsonpath
ORDER BY {order}
LIMIT %(limit)s

-- within_bytes --
-- Of a list, what begins before its attributes have so many bytes, as they are stored; and of the last one, whether it
-- is the last for that reason.
SELECT l.id, l.client_id, l.name, l.sku, l.is_active, l.attributes, l.created_at, l.updated_at,
    l.before + pg_column_size(l.attributes) >= %(bytes)s AS full
FROM (
    SELECT l.*, coalesce(
        sum(pg_column_size(l.attributes)) OVER (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
    ) AS before
    FROM ({page}) l
) l
WHERE l.before < %(bytes)s
ORDER BY {order}

-- passing --
-- A condition of the lists above: those whose attributes pass, found by the attributes' own index.
AND p.id = ANY (ARRAY(SELECT a.id FROM {products} a WHERE a.attributes @@ %(attributes)s::jsonpath))

-- has_product --
-- A row where the client has a product of this id.
SELECT FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(product_id)s

-- media_of_product --
-- The media of a product by when they were added, from behind one of them.
SELECT {media_columns}
FROM media m
WHERE m."clientId" = %(client_id)s
    AND m."productId" = (
        SELECT p.id FROM products p WHERE p."clientId" = %(client_id)s AND {product_api_id} = %(product_id)s
    )
    AND (
        %(after)s::timestamptz IS NULL
        OR (m."createdAt", {media_api_id}) > (%(after)s::timestamptz, %(after_id)s::text)
    )
ORDER BY m."createdAt", {media_api_id}
LIMIT %(limit)s
