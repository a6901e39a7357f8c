-- Every statement of recall.py: a name, a sentence, named parameters. {space} is the live space's table of vectors.

-- live_space --
-- The live embedding space.
SELECT number, id, dimensions, model, live FROM twinlens_spaces WHERE live

-- indexed_clients --
-- The clients with an index that was measured, the largest first.
SELECT name, "clientId" AS client_id, vectors, "efSearch" AS ef_search, recall
FROM twinlens_indexes
WHERE space = %(space)s
ORDER BY vectors DESC

-- kept --
-- The newest searches of the client's customers that were answered twice.
SELECT embedding, "limit", "where"
FROM twinlens_recall
WHERE space = %(space)s AND "clientId" = %(client_id)s
ORDER BY number DESC
LIMIT %(count)s

-- drawn --
-- Vectors of the client's, drawn at random.
SELECT embedding FROM {space} WHERE "clientId" = %(client_id)s AND active ORDER BY random() LIMIT %(count)s
