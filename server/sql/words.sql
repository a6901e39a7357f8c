-- Every statement of words.py: a name, a sentence, named parameters. {named} and {vocabulary} are what the words of the
-- client's products are read from, {products} its products: tables, or views where row-level security is in force.

-- named_of_client --
-- What products are called.
twinlens_named

-- named_under_policy --
-- The same where row-level security is in force. The view finds the client in the transaction's setting.
twinlens_client_named

-- vocabulary_of_client --
-- The words that another one may be a misspelling of.
twinlens_words

-- vocabulary_under_policy --
-- The same where row-level security is in force.
twinlens_client_words

-- read --
-- What a text asks for: all of it with nothing between its letters, its words in order, and what stands for the client.
SELECT twinlens_joined(f.folded) AS joined, twinlens_words_of(f.folded, true) AS words,
    twinlens_client_code(%(client_id)s) AS code
FROM (SELECT twinlens_folded(%(text)s) AS folded) AS f

-- passing --
-- What a product p must be besides.
(%(product_ids)s::text[] IS NULL OR {product_api_id} = ANY(%(product_ids)s::text[]))
    AND (%(attributes)s::jsonpath IS NULL OR p.attributes @@ %(attributes)s::jsonpath)

-- hits --
-- Products that answer to the words, how, and whether the text is at least half as long as their name; not more than one
-- more than `looked`. `joined` is all of the text, `told` all but the words in between. What answers to `asked` and not to
-- `exactly` does so `otherwise`.
SELECT n."productId", n."apiId",
    CASE
        WHEN n.sku = %(joined)s::text THEN 'sku'
        WHEN n.name IN (%(joined)s::text, %(told)s::text) THEN 'name'
        WHEN n.words @@ %(exactly)s::tsquery THEN 'words'
        ELSE %(otherwise)s::text
    END AS by,
    2 * char_length(%(joined)s::text) >= char_length(n.name) AS mostly
FROM {named} n
WHERE n."clientId" = %(client_id)s AND (n.active OR %(inactive)s) AND n.words @@ %(asked)s::tsquery
LIMIT %(looked)s + 1

-- likeness --
-- How well a hit h answers, from 0 to 1, in steps of a tenth.
CASE h.by
    WHEN 'sku' THEN 1
    WHEN 'name' THEN 1
    WHEN 'words' THEN 0.8
    ELSE %(likeness)s::numeric
END + CASE WHEN h.mostly AND h.by NOT IN ('sku', 'name') THEN 0.1 ELSE 0 END

-- find --
-- The products that answer best to the words, and how many have answered. One row without a product where none does.
WITH hits AS MATERIALIZED (
    {hits}
)
SELECT best.*, answering.count AS answering
FROM (SELECT count(*) FROM hits) AS answering
LEFT JOIN (
    SELECT h."apiId" AS product_id, h.by, ({likeness})::float8 AS likeness
    FROM hits h
    ORDER BY likeness DESC, h."apiId"
    LIMIT %(most)s
) AS best ON true
ORDER BY best.likeness DESC, best.product_id

-- find_where --
-- The same among the products that pass the filter.
WITH hits AS MATERIALIZED (
    {hits}
)
SELECT best.*, answering.count AS answering
FROM (SELECT count(*) FROM hits) AS answering
LEFT JOIN (
    SELECT h."apiId" AS product_id, h.by, ({likeness})::float8 AS likeness
    FROM hits h
    JOIN {products} p ON p.id = h."productId"
    WHERE {passing}
    ORDER BY likeness DESC, h."apiId"
    LIMIT %(most)s
) AS best ON true
ORDER BY best.likeness DESC, best.product_id

-- known --
-- Those of these words that some product has which passes the filter; `alone`: each as it is asked for alone.
SELECT one.word
FROM unnest(%(words)s::text[], %(alone)s::text[]) AS one (word, asked)
WHERE EXISTS (
    SELECT
    FROM {named} n
    JOIN {products} p ON p.id = n."productId"
    WHERE n."clientId" = %(client_id)s AND (n.active OR %(inactive)s) AND n.words @@ one.asked::tsquery AND {passing}
)

-- near --
-- The words of the client's that each of these may be a misspelling of; how near they are, nobody has looked yet. Those
-- with the same first letter: of like length and like letters. The others by one wrong first letter alone: two of them
-- swapped, one too many, one missing, another one.
WITH asked AS MATERIALIZED (
    SELECT word, twinlens_letters(word) AS letters FROM unnest(%(words)s::text[]) AS one (word)
)
SELECT one.word, w.word AS near
FROM asked one
JOIN {vocabulary} w
    ON w.word >= left(one.word, 1) COLLATE "C" AND w.word < (left(one.word, 1) || U&'\+10FFFF') COLLATE "C"
    AND char_length(w.word) BETWEEN char_length(one.word) - 2 AND char_length(one.word) + 2
    AND w.word <> one.word
    AND bit_count((w.letters # one.letters)::bit(32)) <= 4
WHERE w."clientId" = %(client_id)s
UNION
SELECT one.word, w.word
FROM asked one
JOIN {vocabulary} w
    ON w.word IN (substr(one.word, 2, 1) || left(one.word, 1) || substr(one.word, 3), substr(one.word, 2))
WHERE w."clientId" = %(client_id)s
UNION
SELECT one.word, w.word
FROM asked one
JOIN {vocabulary} w ON substr(w.word, 2) IN (one.word, substr(one.word, 2))
WHERE w."clientId" = %(client_id)s

-- due --
-- The clients whose products' words are yet to be written down.
SELECT "clientId" FROM twinlens_words_due ORDER BY "clientId"

-- name_due --
-- Write down what the next of the client's products are called; whether any may be left.
SELECT twinlens_name_due(%(client_id)s, %(most)s)
