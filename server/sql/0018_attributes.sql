-- What the attributes of a client's products are: where a text is stored, what filters compare it as.

CREATE TABLE twinlens_attributes (
    "clientId" text NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    type text NOT NULL CHECK (type IN ('number', 'text', 'boolean', 'date', 'list')),
    PRIMARY KEY ("clientId", name)
);


-- As before, whatever that was, with the new table.
ALTER FUNCTION twinlens_serving_rights() RENAME TO twinlens_serving_rights_before_attributes;

CREATE FUNCTION twinlens_serving_rights() RETURNS TABLE (name text, rights text, "byClient" boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT * FROM twinlens_serving_rights_before_attributes()
    UNION ALL
    VALUES ('twinlens_attributes', 'SELECT, INSERT, UPDATE, DELETE', true)
$$;
