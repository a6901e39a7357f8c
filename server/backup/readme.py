"""What lies at the beginning of every backup, for whoever opens one without Twinlens."""

TEXT = """\
This is a backup of a Twinlens catalogue: an uncompressed tar.

    twinlens-backup.json    what it is: of when, of which schema, whether the pictures are in it
    database.dump           the database, as pg_dump --format=custom writes it
    store/                  the store of pictures, as a folder; absent where the backup was made without
    PROBLEMS.txt            only where pictures could not be had: their keys, and why
    SHA256SUMS              of all of these

It holds digests of keys and the secret that signs addresses of pictures: keep it as you keep a password.

With Twinlens, into an empty database and an empty store:

    python -m server restore FILE

Without:

    tar --extract --file FILE && sha256sum --check --quiet SHA256SUMS
    psql --dbname URL --command 'CREATE ROLE twinlens_server NOLOGIN'
    pg_restore --dbname URL --no-owner --no-privileges --single-transaction --exit-on-error database.dump

Then put store/ where TWINLENS_MEDIA_URL, or media/ of TWINLENS_DATA, is to be, and start the server. What it prints
when something is missing says what to do. The chapter "Backups" of docs/operations.md has more.
"""
