-- Every statement of facets.py: a name, a sentence, named parameters. {space} is the space's table of vectors.

-- cosine --
-- The cosine of a media with the query, as `search` of queries.sql gives it: to the sixth decimal.
round(greatest(-1, least(1, 1 - (v.embedding <=> %(embedding)s)))::numeric, 6)::float8

-- passing --
-- What is counted: each product of the client that has media which pass, its attributes, and how much it counts: as many
-- as it has such media, or once. Where there is a least cosine, media must reach it, which an exact scan finds out; what
-- cannot is left out before its cosine is rounded.
--
-- Grouped by the product's id alone, whose index gives that order: its attributes are the same in all of its rows, and
-- to hash or to sort them takes longer than all the rest.
SELECT (array_agg(p.attributes))[1] AS attributes, CASE WHEN %(grouped)s THEN 1 ELSE count(*) END AS weight
FROM {products} p
JOIN media m ON m."productId" = p.id
JOIN {space} v ON v."mediaId" = m.id AND v."clientId" = m."clientId"
WHERE m."clientId" = %(client_id)s AND (v.active OR %(inactive)s AND m.status = 'ready' AND m.kind = 'image')
    AND (%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
    AND (%(kind)s::text IS NULL OR m.kind = %(kind)s::text)
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)
    AND (%(least)s::float8 IS NULL
        OR 1 - (v.embedding <=> %(embedding)s) > %(least)s::float8 - 0.000001 AND {cosine} >= %(least)s::float8
        OR {product_api_id} = ANY(%(named)s::text[])
            AND (%(least_named)s::float8 IS NULL OR {cosine} >= %(least_named)s::float8))
    AND NOT (%(without_blank)s AND v.blank)
GROUP BY p.id

-- read_moment --
-- The moment that a text is, where dates are declared; NULL for others, and for a year that a date of RFC 3339 cannot
-- have.
SELECT moment
FROM unnest(%(dates)s::jsonpath[]) AS form (path),
    LATERAL (SELECT jsonb_path_query_first(e.value, form.path, '{{}}', true) #>> '{{}}') AS written (text),
    LATERAL (SELECT written.text::timestamptz) AS read (moment)
WHERE moment BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'
LIMIT 1

-- read --
-- A value as what its attribute is declared as: itself, or what a text stands for; and its measure, by which numbers and
-- dates are ordered.
SELECT
    CASE jsonb_typeof(e.value)
        WHEN 'number' THEN e.value
        WHEN 'boolean' THEN e.value
        ELSE CASE a.type
            WHEN 'number' THEN coalesce(jsonb_path_query_first(e.value, %(number)s::jsonpath, '{{}}', true), e.value)
            WHEN 'boolean' THEN CASE
                WHEN e.value @@ %(true)s::jsonpath THEN 'true'
                WHEN e.value @@ %(false)s::jsonpath THEN 'false'
                ELSE e.value
            END
            WHEN 'date' THEN coalesce(to_jsonb(({read_moment})), e.value)
            ELSE e.value
        END
    END AS value,
    CASE
        WHEN jsonb_typeof(e.value) = 'number' THEN e.value::numeric
        WHEN jsonb_typeof(e.value) <> 'string' THEN NULL
        WHEN a.type = 'number' THEN jsonb_path_query_first(e.value, %(number)s::jsonpath, '{{}}', true)::numeric
        WHEN a.type = 'date' THEN extract(epoch FROM ({read_moment}))
    END AS measure

-- facets --
-- How much of what passes has each of the values that are asked for: the total first, then facet by facet.
--
-- Products with the very same value, or list of values, are counted together first: only what differs is then taken
-- apart, read and compared. Values come by their count, then by kind and value; texts by the bytes of their letters, so
-- that the order is the same in every database.
WITH passing AS MATERIALIZED (
    {passing}
), asked AS (
    SELECT *
    FROM unnest(%(names)s::text[], %(types)s::text[], %(limits)s::integer[], %(counting)s::boolean[],
        %(measuring)s::boolean[]) WITH ORDINALITY AS a (name, type, "limit", counting, measuring, facet)
), ranges AS (
    SELECT * FROM unnest(%(range_facets)s::integer[], %(range_paths)s::jsonpath[]) WITH ORDINALITY AS r (facet, path, place)
), held AS MATERIALIZED (
    SELECT a.facet, p.attributes -> a.name AS value, sum(p.weight) AS count
    FROM passing p CROSS JOIN asked a
    GROUP BY a.facet, p.attributes -> a.name
), said AS (
    -- Each value of a list once.
    SELECT e.facet, e.count, one.value, one.measure
    FROM held e JOIN asked a USING (facet) CROSS JOIN LATERAL ({read}) AS one
    WHERE a.counting AND jsonb_typeof(e.value) IN ('string', 'number', 'boolean')
    UNION ALL
    SELECT h.facet, h.count, one.value, one.measure
    FROM held h JOIN asked a USING (facet) CROSS JOIN LATERAL (
        SELECT DISTINCT one.value, one.measure
        FROM jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE '[]' END) AS e (value)
            CROSS JOIN LATERAL ({read}) AS one
        WHERE jsonb_typeof(e.value) IN ('string', 'number', 'boolean')
    ) AS one
    WHERE a.counting AND jsonb_typeof(h.value) = 'array'
), counted AS MATERIALIZED (
    SELECT facet, value, measure, sum(count) AS count FROM said GROUP BY facet, value, measure
)
SELECT 0 AS facet, 'total' AS what, 0 AS place, NULL AS value, NULL::numeric AS measure, NULL::numeric AS most,
    coalesce(sum(weight), 0)::bigint AS count
FROM passing
UNION ALL
SELECT a.facet, 'value', row_number() OVER (
    PARTITION BY a.facet
    ORDER BY best.count DESC, jsonb_typeof(best.value) COLLATE "C", best.measure, (best.value #>> '{{}}') COLLATE "C"
), best.value, best.measure, NULL, best.count::bigint
FROM asked a CROSS JOIN LATERAL (
    SELECT c.*
    FROM counted c
    WHERE c.facet = a.facet
    ORDER BY c.count DESC, jsonb_typeof(c.value) COLLATE "C", c.measure, (c.value #>> '{{}}') COLLATE "C"
    LIMIT a."limit"
) AS best
UNION ALL
SELECT r.facet, 'range', r.place, NULL, NULL, NULL, coalesce(sum(h.count) FILTER (WHERE h.value @@ r.path), 0)::bigint
FROM ranges r LEFT JOIN held h USING (facet)
GROUP BY r.facet, r.place
UNION ALL
SELECT a.facet, 'stats', 0, NULL, min(one.least), max(one.most),
    coalesce(sum(h.count) FILTER (WHERE one.least IS NOT NULL), 0)::bigint
FROM asked a LEFT JOIN held h USING (facet) LEFT JOIN LATERAL (
    SELECT min(one.measure) AS least, max(one.measure) AS most
    FROM jsonb_path_query(h.value, '$[*]') AS e (value) CROSS JOIN LATERAL ({read}) AS one
    WHERE jsonb_typeof(one.value) = CASE a.type WHEN 'date' THEN 'string' ELSE 'number' END
) AS one ON true
WHERE a.measuring
GROUP BY a.facet
ORDER BY facet, what, place
