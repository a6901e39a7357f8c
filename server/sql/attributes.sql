-- Every statement of declared.py: a name, a sentence, named parameters.

-- types --
-- What the client's attributes of these names are declared as; all of them without names.
SELECT a.name, a.type
FROM twinlens_attributes a
WHERE a."clientId" = %(client_id)s AND (%(names)s::text[] IS NULL OR a.name = ANY(%(names)s::text[]))
ORDER BY a.name

-- declare --
-- What the client's attributes are from now on; the others are then declared as nothing.
WITH gone AS (
    DELETE FROM twinlens_attributes a WHERE a."clientId" = %(client_id)s AND a.name <> ALL (%(names)s::text[])
)
INSERT INTO twinlens_attributes AS a ("clientId", name, type)
SELECT %(client_id)s, one.name, one.type FROM unnest(%(names)s::text[], %(types)s::text[]) AS one (name, type)
ON CONFLICT ("clientId", name) DO UPDATE SET type = excluded.type
