-- Every statement of the audit: a name, a sentence, named parameters.

-- add --
-- Keep entries, each column an array. There is nothing to return: who adds may not read.
INSERT INTO twinlens_audit
    (at, "keyId", operator, "clientId", address, action, object, status, code, "requestId", count)
SELECT * FROM unnest(
    %(at)s::timestamptz[], %(key_id)s::text[], %(operator)s::text[], %(client_id)s::text[], %(address)s::inet[],
    %(action)s::text[], %(object)s::text[], %(status)s::smallint[], %(code)s::text[], %(request_id)s::text[],
    %(count)s::integer[]
)

-- forget --
-- Remove entries that are older, the oldest first, at most so many; how many. A few at a time: so no lock is held for
-- long, and nothing is waited for.
WITH gone AS (
    DELETE FROM twinlens_audit
    WHERE id IN (
        SELECT id FROM twinlens_audit WHERE at < now() - %(older_than)s
        ORDER BY at LIMIT %(most)s FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM gone

-- entries --
-- The newest entries, as far as they are asked for, the oldest of them first.
SELECT * FROM (
    SELECT id, at, "keyId" AS key_id, operator, "clientId" AS client_id, host(address) AS address, action, object,
        status, code, "requestId" AS request_id, count
    FROM twinlens_audit
    WHERE (%(client_id)s::text IS NULL OR "clientId" = %(client_id)s)
      AND (%(key_id)s::text IS NULL OR "keyId" = %(key_id)s)
      AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
      AND (%(action)s::text IS NULL OR strpos(lower(action), lower(%(action)s)) > 0)
    ORDER BY at DESC, id DESC
    LIMIT %(limit)s
) AS newest
ORDER BY at, id
