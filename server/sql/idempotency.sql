-- Every statement of idempotency.py: a name, a sentence, named parameters.

-- claim --
-- Have a key stand for this request, unless it stands for one already. Waits for nobody, and not for the disk: a crash
-- that loses it loses the request as well, since what that commits later cannot be on the disk before.
INSERT INTO twinlens_idempotency ("clientId", key, fingerprint, until)
SELECT %(client_id)s, %(key)s, %(fingerprint)s, now() + %(within)s
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS without_waiting
ON CONFLICT DO NOTHING
RETURNING token

-- known --
-- What a key stands for, and whether that counts still; `left`: for how many seconds.
SELECT fingerprint, status, body, etag, extract(epoch FROM until - now())::float8 AS left
FROM twinlens_idempotency
WHERE "clientId" = %(client_id)s AND key = %(key)s

-- take_over --
-- Have a key stand for this request in place of one whose time is over.
UPDATE twinlens_idempotency
SET fingerprint = %(fingerprint)s, token = DEFAULT, status = NULL, body = NULL, etag = NULL,
    until = now() + %(within)s
WHERE "clientId" = %(client_id)s AND key = %(key)s AND until <= now()
RETURNING token

-- keep --
-- Keep the answer to the request that the key stands for; no row where another one has taken its place.
UPDATE twinlens_idempotency
SET status = %(status)s, body = %(body)s, etag = %(etag)s, until = now() + %(lasting)s
WHERE "clientId" = %(client_id)s AND key = %(key)s AND token = %(token)s AND status IS NULL

-- release --
-- The request changed nothing: its key stands for nothing any more.
DELETE FROM twinlens_idempotency
WHERE "clientId" = %(client_id)s AND key = %(key)s AND token = %(token)s AND status IS NULL

-- forget --
-- Remove rows that do not count any more, at most so many; how many.
WITH gone AS (
    DELETE FROM twinlens_idempotency
    WHERE ("clientId", key) IN (
        SELECT "clientId", key FROM twinlens_idempotency WHERE until <= now()
        ORDER BY until LIMIT %(most)s FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM gone

-- trim --
-- Of clients with more rows than a client may have, remove the oldest, at most so many of each; how many.
WITH gone AS (
    DELETE FROM twinlens_idempotency
    WHERE ("clientId", key) IN (
        SELECT k."clientId", k.key
        FROM (
            SELECT "clientId", count(*) - %(kept)s AS over
            FROM twinlens_idempotency GROUP BY "clientId" HAVING count(*) > %(kept)s
        ) AS large
        CROSS JOIN LATERAL (
            SELECT "clientId", key FROM twinlens_idempotency i
            WHERE i."clientId" = large."clientId" AND status IS NOT NULL
            ORDER BY until LIMIT least(large.over, %(most)s)
        ) AS k
    )
    RETURNING 1
)
SELECT count(*) FROM gone
