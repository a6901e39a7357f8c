-- A large client's catalogue: a name, a sentence, named parameters.

-- products --
-- The client's products with attributes as a shop has them: of few and of many values, lists, numbers, and numbers and
-- dates as texts. One in fifty is not active.
INSERT INTO products (id, "clientId", name, "isActive", attributes)
SELECT 'product-' || n, 'large', 'Product ' || n, mod(n, 50) <> 1, jsonb_build_object(
    'category', 'category ' || floor(power(random(), 3) * 200),
    'brand', 'brand ' || floor(power(random(), 2) * 3000),
    'price', round((random() * 500)::numeric, 2),
    'new', random() < 0.1,
    'colour', (
        SELECT jsonb_agg('colour ' || floor(random() * 30)) FROM generate_series(1, 1 + mod(n, 3))
    ),
    'material', 'material ' || floor(random() * 10),
    'audience', (ARRAY['women', 'men', 'all'])[1 + mod(n, 3)],
    'size', floor(30 + random() * 20)::text,
    'weight', round((random() * 100)::numeric, 3)::text,
    'added', to_char(date '2020-01-01' + floor(random() * 2000)::integer, 'YYYY-MM-DD')
)
FROM generate_series(1, %(products)s) n

-- media --
-- Two media of each product.
INSERT INTO media (id, "productId", "clientId", "s3Key")
SELECT p.id || '-' || n, p.id, p."clientId", 'none' FROM products p, generate_series(1, 2) n

-- directions --
-- Some vectors of random directions, for whole catalogues of them would take minutes to draw.
CREATE TEMPORARY TABLE directions AS
SELECT n, l2_normalize((
    SELECT array_agg((random() + random() + random() - 1.5)::real) FROM generate_series(1, %(dimensions)s) WHERE n = n
)::vector::halfvec) AS embedding
FROM generate_series(0, 1999) n

-- vectors --
-- One of them for each media.
INSERT INTO {space} (space, "mediaId", embedding)
SELECT %(space)s, m.id, d.embedding
FROM media m JOIN directions d ON d.n = mod(abs(hashtext(m.id)), 2000)
