-- Every statement of server/access: a name, a sentence, named parameters. The columns carry the names of the fields of
-- the records that they become.

-- key_columns --
-- The fields of a StoredKey.
id, name, "clientId" AS client_id, scopes, digest, "searchSecret" AS search_secret, limits, "createdAt" AS created_at,
    "expiresAt" AS expires_at, "revokedAt" AS revoked_at, replaces

-- state --
-- Whether callers need a key, and the version of all that is known of access.
SELECT "keysOn" AS keys_on, version, "urlSecret" AS url_secret FROM twinlens_access

-- usable_keys --
-- The keys that are neither revoked nor expired.
SELECT {key_columns} FROM twinlens_keys WHERE "revokedAt" IS NULL AND ("expiresAt" IS NULL OR "expiresAt" > now())

-- client_limits --
-- The limits of clients.
SELECT "clientId" AS client_id, limits FROM twinlens_limits

-- add_key --
-- Keep a new key's digest.
INSERT INTO twinlens_keys (id, name, "clientId", scopes, digest, "searchSecret", limits, "expiresAt", replaces)
VALUES (%(id)s, %(name)s, %(client_id)s, %(scopes)s, %(digest)s, %(search_secret)s, %(limits)s, %(expires_at)s,
    %(replaces)s)
RETURNING {key_columns}

-- keys --
-- All keys, or those of a client, the newest last.
SELECT {key_columns}
FROM twinlens_keys
WHERE %(client_id)s::text IS NULL OR "clientId" = %(client_id)s
ORDER BY "createdAt", id

-- key --
-- The key of this id, until the end of the transaction as it is now.
SELECT {key_columns} FROM twinlens_keys WHERE id = %(id)s FOR UPDATE

-- end_key --
-- Have a key expire at this time at the latest.
UPDATE twinlens_keys SET "expiresAt" = least("expiresAt", %(at)s) WHERE id = %(id)s RETURNING {key_columns}

-- revoke_key --
-- Revoke a key; one that is revoked stays revoked since it was.
UPDATE twinlens_keys SET "revokedAt" = coalesce("revokedAt", now()) WHERE id = %(id)s RETURNING {key_columns}

-- turn --
-- From now on callers need a key, or need none.
UPDATE twinlens_access SET "keysOn" = %(on)s

-- there --
-- Whether there is anything about access: there is not before the first start, nor in a database of an older version.
SELECT to_regclass('twinlens_access') IS NOT NULL

-- listen --
-- Be told of each change.
LISTEN twinlens_access
