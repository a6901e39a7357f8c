-- Words as people type them: what products are called, so that searches find them by name, SKU and attributes.

-- The attributes whose words a client's products are found by, where the client has chosen. Without a row, those of
-- twinlens_searched_unless_chosen().
CREATE TABLE twinlens_searchable (
    "clientId" text PRIMARY KEY CHECK (length("clientId") BETWEEN 1 AND 255),
    names text[] NOT NULL CHECK (cardinality(names) <= 20)
);

-- What each product is called. Rows come and go by the triggers below, whoever writes products.
CREATE TABLE twinlens_named (
    "productId" text PRIMARY KEY REFERENCES products (id) ON DELETE CASCADE ON UPDATE CASCADE,
    "clientId" text NOT NULL,
    "apiId" text NOT NULL,    -- the product's id in the API
    active boolean NOT NULL,
    -- Folded, and with nothing between their letters and digits.
    name text COLLATE "C" NOT NULL,
    sku text COLLATE "C",
    -- As lexemes: the words of the name, of the SKU and of the chosen attributes, each behind eight digits that stand for
    -- the client. So what the index holds of one client, a search of another one never passes through. What begins with #
    -- is the SKU as a whole.
    words tsvector NOT NULL
);
-- Without a list of what is yet to be sorted in, which each search would read.
CREATE INDEX twinlens_named_words ON twinlens_named USING gin (words) WITH (fastupdate = off);

-- The words that another one may be a misspelling of: each once for a client, but for what two transactions added at the
-- same moment. There is no unique index on purpose, since writers of products would wait for each other there, and for
-- ever. A word that no product has any more does no harm: nothing is found by it.
CREATE TABLE twinlens_words (
    "clientId" text NOT NULL,
    word text COLLATE "C" NOT NULL,
    letters integer NOT NULL    -- a bit for each letter: words that are near each other differ in few
);
CREATE INDEX twinlens_words_word ON twinlens_words ("clientId", word);
-- For words whose first letter is wrong, or missing.
CREATE INDEX twinlens_words_rest ON twinlens_words ("clientId", substr(word, 2));

-- The clients whose products' words are yet to be written down, and how far that has come: all up to this id in the API.
CREATE TABLE twinlens_words_due (
    "clientId" text PRIMARY KEY,
    after text NOT NULL DEFAULT ''
);


-- --- words ---------------------------------------------------------------------------------------------------------

-- The attributes that products are found by unless their client chooses others: what shops call brand, kind and colour,
-- under the names that the common feeds have for them. No descriptions: nearly every word stands in one of many.
CREATE FUNCTION twinlens_searched_unless_chosen() RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT '{brand,vendor,category,type,colour,color,material,gtin,mpn}'::text[]
$$;


-- A text as words are compared: lower case, without accents, one form for each letter. By rules of our own, so that it is
-- the same on every machine: what lower() does depends on the database's locale.
CREATE FUNCTION twinlens_folded(given text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    folded text := lower(given COLLATE "C");    -- A to Z alone
BEGIN
    IF octet_length(folded) = char_length(folded) THEN
        RETURN folded;
    END IF;
    -- Marks of the scripts where words are searched without them; vowel signs of Indic scripts are letters.
    folded := regexp_replace(
        normalize(folded, NFKD),
        '[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f'
            || '\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\u00ad\u200b-\u200d\u2060\ufeff]',
        '', 'g'
    );
    folded := translate(
        lower(folded COLLATE "C"),
        -- Letter by letter: these become those.
        'ØøŁłĐđÐðĦħŦŧıŊƏΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩς'
            || 'ЂЄЅІЈЉЊЋЏАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѠѢѤѦѨѪѬѮѰѲѴѸѺѼѾҀҊҌҎҐҒ'
            || 'ҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӃӅӇӉӋӍӔӘӠӨӶӺӼӾԀԂԄԆԈԊԌԎԐԒԔԖԘԚԜԞԠԢԤԦԨԪԬԮ'
            || 'ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ',
        'oollddddhhttiŋəαβγδεζηθικλμνξοπρστυφχψωσ'
            || 'ђєѕіјљњћџабвгдежзиклмнопрстуфхцчшщъыьэюяѡѣѥѧѩѫѭѯѱѳѵѹѻѽѿҁҋҍҏґғ'
            || 'ҕҗҙқҝҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӄӆӈӊӌӎӕәӡөӷӻӽӿԁԃԅԇԉԋԍԏԑԓԕԗԙԛԝԟԡԣԥԧԩԫԭԯ'
            || 'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ'
    );
    folded := replace(replace(replace(replace(replace(replace(replace(replace(
        folded, 'ß', 'ss'), 'ẞ', 'ss'), 'Æ', 'ae'), 'æ', 'ae'), 'Œ', 'oe'), 'œ', 'oe'), 'Þ', 'th'), 'þ', 'th');
    -- Syllables of Korean as one letter each again.
    RETURN normalize(folded, NFC);
END $$;


-- What a folded text is called without anything between its letters and digits: flip-flop is as flipflop.
CREATE FUNCTION twinlens_joined(folded text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(
        folded,
        '[\u0001-/:-@\u005b-`{-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u2000-\u206f\u20a0-\u20cf'
            || '\u2190-\u2bff\u3000-\u3004\u3008-\u3020\u3030\u30fb\ufe30-\ufe6f\uff00-\uff0f]+',
        '', 'g'
    )
$$;


-- The words of a folded text, in order; at most 200, and of each the first 40 letters. Beside the parts of what is
-- written with something in between, the whole of it. Where a script has no spaces, each letter and each two; where the
-- text is what is searched for, each two alone.
CREATE FUNCTION twinlens_words_of(folded text, searched boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    unspaced CONSTANT text :=
        '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u3400-\u9fff\uf900-\ufaff'
            || '\U00020000-\U0003ffff]';
    between CONSTANT text :=
        '[\u0001-/:-@\u005b-`{-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u2000-\u206f\u20a0-\u20cf'
            || '\u2190-\u2bff\u3000-\u3004\u3008-\u3020\u3030\u30fb\ufe30-\ufe6f\uff00-\uff0f]+';
    found text[] := '{}';
    parts text[];
    token text;
    part text;
BEGIN
    IF folded !~ '[^a-z0-9 ]|[a-z0-9]{41}' THEN    -- as most names
        RETURN (array_remove(string_to_array(folded, ' '), ''))[:200];
    END IF;
    IF octet_length(folded) > char_length(folded) THEN
        folded := regexp_replace(folded, '(' || unspaced || '+)', ' \1 ', 'g');
    END IF;
    FOREACH token IN ARRAY regexp_split_to_array(folded, '[\s\u00a0\u2000-\u200a\u3000]+') LOOP
        EXIT WHEN cardinality(found) >= 200;
        parts := array_remove(regexp_split_to_array(token, between), '');
        IF cardinality(parts) > 1 AND NOT searched THEN
            found := found || left(array_to_string(parts, ''), 40);
        END IF;
        FOREACH part IN ARRAY parts LOOP
            IF octet_length(part) > char_length(part) AND part ~ ('^' || unspaced) THEN
                IF NOT searched OR char_length(part) = 1 THEN
                    found := found || string_to_array(left(part, 40), NULL);
                END IF;
                found := found || array(
                    SELECT substr(part, place, 2) FROM generate_series(1, least(char_length(part), 40) - 1) place
                );
            ELSE
                found := found || left(part, 40);
            END IF;
        END LOOP;
    END LOOP;
    RETURN found[:200];
END $$;


-- A bit for each letter of a word.
CREATE FUNCTION twinlens_letters(word text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(bit_or(1 << (ascii(letter) & 31)), 0) FROM unnest(string_to_array(word, NULL)) AS letter
$$;


-- What stands for a client in twinlens_named.
CREATE FUNCTION twinlens_client_code(client text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(md5(client), 8)
$$;


-- The texts and numbers of some attributes as one text.
CREATE FUNCTION twinlens_attributes_text(attributes jsonb, names text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(one.value #>> '{}', ' ' ORDER BY given.place, one.place)
    FROM unnest(names) WITH ORDINALITY AS given (name, place)
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE jsonb_typeof(attributes -> given.name)
            WHEN 'array' THEN attributes -> given.name
            ELSE jsonb_build_array(attributes -> given.name)
        END
    ) WITH ORDINALITY AS one (value, place)
    WHERE attributes ? given.name AND jsonb_typeof(one.value) IN ('string', 'number')
$$;


-- --- in step with products -------------------------------------------------------------------------------------------

-- Writes down what these products are called, as they are now. Of texts that no call of the API would take, the beginning.
--
-- By indexes, whatever the statistics say of tables that are being filled just now.
CREATE FUNCTION twinlens_name_products(ids text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    WITH called AS MATERIALIZED (
        SELECT p.id, p."clientId", CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END AS api_id, p."isActive",
            twinlens_folded(left(p.name, 1000)) AS name, twinlens_folded(p.sku) AS sku,
            twinlens_folded(left(twinlens_attributes_text(
                p.attributes, coalesce(s.names, twinlens_searched_unless_chosen())
            ), 4000)) AS facts
        FROM products p
        LEFT JOIN twinlens_searchable s ON s."clientId" = p."clientId"
        WHERE p.id = ANY (ids)
    ), worded AS MATERIALIZED (
        SELECT id, "clientId", api_id, "isActive", left(twinlens_joined(name), 500) AS name, left(twinlens_joined(sku), 200) AS sku,
            twinlens_words_of(name) || twinlens_words_of(coalesce(facts, '')) AS words,
            twinlens_words_of(coalesce(sku, '')) AS parts
        FROM called
    ), kept AS (
        INSERT INTO twinlens_named AS n ("productId", "clientId", "apiId", active, name, sku, words)
        SELECT id, "clientId", api_id, "isActive", name, sku, array_to_tsvector(array(
            SELECT twinlens_client_code("clientId") || ':' || word
            FROM unnest(words || parts || left(name, 40) || ('=' || left(name, 200)) || ('#' || sku)) AS word
            WHERE word NOT IN ('', '=', '#')
        ))
        FROM worded
        ORDER BY id
        ON CONFLICT ("productId") DO UPDATE
            SET "clientId" = excluded."clientId", "apiId" = excluded."apiId", active = excluded.active,
                name = excluded.name, sku = excluded.sku, words = excluded.words
            WHERE (n."clientId", n."apiId", n.active, n.name, n.sku, n.words) IS DISTINCT FROM
                (excluded."clientId", excluded."apiId", excluded.active, excluded.name, excluded.sku, excluded.words)
    )
    INSERT INTO twinlens_words ("clientId", word, letters)
    SELECT one."clientId", one.word, twinlens_letters(one.word)
    FROM (SELECT DISTINCT "clientId", unnest(words) AS word FROM worded) AS one
    -- What has digits is nobody's misspelling.
    WHERE char_length(one.word) BETWEEN 3 AND 24 AND one.word !~ '[0-9]'
        AND NOT EXISTS (SELECT FROM twinlens_words w WHERE w."clientId" = one."clientId" AND w.word = one.word);
END $$;


-- SECURITY DEFINER: a role that may only write products must not fail on tables that it never heard of.
--
-- The lock is LOCKS_OF_WORDS of locks.py. All who write a client's products share it, and who changes which attributes are
-- searched has it alone: so whoever writes down words knows what was chosen.
CREATE FUNCTION twinlens_follow_names() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ids text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        ids := array(SELECT id FROM changed);
    ELSE
        ids := array(
            SELECT id FROM (
                SELECT id, "apiId", "clientId", name, sku, "isActive", attributes FROM changed
                EXCEPT
                SELECT id, "apiId", "clientId", name, sku, "isActive", attributes FROM former
            ) AS one
        );
    END IF;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_advisory_xact_lock_shared(1953982844, hashtext(one."clientId"))
        FROM (SELECT DISTINCT "clientId" FROM changed ORDER BY 1) AS one;
        PERFORM twinlens_name_products(ids);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER twinlens_name_new AFTER INSERT ON products
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION twinlens_follow_names();
CREATE TRIGGER twinlens_name_changed AFTER UPDATE ON products
    REFERENCING NEW TABLE AS changed OLD TABLE AS former
    FOR EACH STATEMENT EXECUTE FUNCTION twinlens_follow_names();


-- Has all words of a client written down anew, beginning now.
CREATE FUNCTION twinlens_searchable_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    client text := CASE TG_OP WHEN 'DELETE' THEN OLD."clientId" ELSE NEW."clientId" END;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD IS NOT DISTINCT FROM NEW THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(1953982844, hashtext(client));
    IF NOT EXISTS (SELECT FROM products WHERE "clientId" = client) THEN
        RETURN NULL;
    END IF;
    INSERT INTO twinlens_words_due ("clientId") VALUES (client)
    ON CONFLICT ("clientId") DO UPDATE SET after = '';
    RETURN NULL;
END $$;

CREATE TRIGGER twinlens_changed AFTER INSERT OR UPDATE OR DELETE ON twinlens_searchable
    FOR EACH ROW EXECUTE FUNCTION twinlens_searchable_changed();


-- Writes down what the next of a client's products are called, at most so many; whether any may be left. It is for the
-- owner of the tables. The products are locked against change, so that nobody's newer words are overwritten by older ones.
CREATE FUNCTION twinlens_name_due(client text, most integer) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    begun text;
    ids text[];
    last text;
BEGIN
    SELECT d.after INTO begun FROM twinlens_words_due d WHERE d."clientId" = client FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT array_agg(one.id), (array_agg(one.api_id ORDER BY one.api_id DESC))[1] INTO ids, last
    FROM (
        SELECT p.id, CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END AS api_id
        FROM products p
        WHERE p."clientId" = client AND (CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END) > begun
        ORDER BY (CASE WHEN p."apiId" IS NULL THEN p.id ELSE p."apiId" END)
        LIMIT most
        FOR SHARE
    ) AS one;
    PERFORM twinlens_name_products(ids);
    IF coalesce(cardinality(ids), 0) < most THEN
        DELETE FROM twinlens_words_due WHERE "clientId" = client;
        RETURN false;
    END IF;
    UPDATE twinlens_words_due SET after = last WHERE "clientId" = client;
    RETURN true;
END $$;


-- What is there already is written down beside running servers: no writer waits for it.
INSERT INTO twinlens_words_due ("clientId") SELECT DISTINCT "clientId" FROM products;


-- --- what serves -----------------------------------------------------------------------------------------------------

-- The words of the client that the transaction names, as twinlens_client_products has products: @@ would lose its index
-- under a policy.
CREATE VIEW twinlens_client_named AS
    SELECT "productId", "clientId", "apiId", active, name, sku, words FROM twinlens_named
    WHERE "clientId" = ANY (ARRAY[current_setting('twinlens.client', true)]);
CREATE VIEW twinlens_client_words AS
    SELECT "clientId", word, letters FROM twinlens_words
    WHERE "clientId" = ANY (ARRAY[current_setting('twinlens.client', true)]);


-- As before, with the new table and views.
CREATE OR REPLACE FUNCTION twinlens_serving_rights() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    VALUES ('products', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('media', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_client_products', 'SELECT', false),
        ('twinlens_client_named', 'SELECT', false),
        ('twinlens_client_words', 'SELECT', false),
        ('twinlens_spaces', 'SELECT', false),
        ('twinlens_indexes', 'SELECT', false),
        ('twinlens_swept', 'SELECT', false),
        ('twinlens_access', 'SELECT ("servingRoles")', false),
        ('twinlens_rates', 'SELECT, INSERT, UPDATE, DELETE', false),
        ('twinlens_audit', 'INSERT', false),
        ('twinlens_feed_rows', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_idempotency', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_attributes', 'SELECT, INSERT, UPDATE, DELETE', true),
        ('twinlens_searchable', 'SELECT, INSERT, UPDATE, DELETE', true)
    UNION ALL
    SELECT 'twinlens_space_' || number, 'SELECT, INSERT', true FROM twinlens_spaces
$$;


-- Those that serve already have their rights on them, and are held to one client there, from now on.
DO $$
BEGIN
    PERFORM twinlens_isolate_clients();
END $$;
