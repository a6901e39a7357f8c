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
