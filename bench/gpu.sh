#!/usr/bin/env bash
# What a GPU makes of this: the model alone, from bytes to vectors, and over HTTP. No database, no network beyond
# loopback. See bench/README.md; all options are those of `python -m bench.gpu`.
#
#   bench/gpu.sh --model ARTIFACT --checkpoint CHECKPOINT --json gpu.json
#
# PYTHON names another Python than that of `make`.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python3
    [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi
exec "$PYTHON" -m bench.gpu "$@"
