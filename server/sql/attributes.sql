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

-- searchable --
-- The attributes whose words the client's products are found by: those that it has chosen, or those of everybody else.
SELECT coalesce(
    (SELECT s.names FROM twinlens_searchable s WHERE s."clientId" = %(client_id)s), twinlens_searched_unless_chosen()
)

-- choose_searchable --
-- Have the client's products be found by the words of these attributes. A trigger sees to it that they are written down.
INSERT INTO twinlens_searchable AS s ("clientId", names) VALUES (%(client_id)s, %(searchable)s::text[])
ON CONFLICT ("clientId") DO UPDATE SET names = excluded.names

-- choose_usual --
-- Have them be found by those of everybody who has chosen none.
DELETE FROM twinlens_searchable s WHERE s."clientId" = %(client_id)s
