# `make serve` and `make test` are all that a new user needs; each sets up what it wants and does it only once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The GPU build of ONNX Runtime where there is an NVIDIA driver, else the CPU build. EXTRA=gpu or EXTRA=cpu decides
# before the first `make`, or after `make clean`: the two builds cannot share an environment.
EXTRA ?= $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)

# Every TWINLENS_ variable reaches the server by itself; `make serve PORT=9000` works as well.
SETTINGS := HOST PORT DATA MODEL PRECISION DEVICE WORKERS THREADS BATCH TENSORRT DECODER TARGET_RECALL CACHE DATABASE_URL DATABASE_URL_FILE OWNER_DATABASE_URL OWNER_DATABASE_URL_FILE DIRECT_DATABASE_URL DIRECT_DATABASE_URL_FILE POOLING READ_DATABASE_URL READ_DATABASE_URL_FILE MEDIA_URL MEDIA_URL_FILE DEADLINE MAX_UPLOAD BODY_MEMORY MAX_PIXELS MAX_PARTS MAX_JSON MAX_HEAD HEAD_SECONDS LIMITS KEY_LIMITS CLIENT_LIMITS URL_LIFETIME DEMO CORS_ORIGINS FETCH_HOSTS PROXIES AUDIT_DAYS LOG ACCESS_LOG TRUST_NETWORK
GIVEN := $(foreach name,$(SETTINGS),$(if $(filter command,$(firstword $(origin $(name)))),TWINLENS_$(name)='$($(name))'))

.PHONY: serve test slow test-all bench fuzz audit-dependencies setup helm check format clean
.DELETE_ON_ERROR:

serve: $(VENV)/.serve
	@TWINLENS_DEMO=$${TWINLENS_DEMO:-on} $(GIVEN) exec $(BIN)/python -m server

# Four processes, each with a PostgreSQL of its own, keep two cores busy: tests wait for processes that start and end.
SPREAD := --numprocesses 4 --dist worksteal

# All tests; with ARGS on one process, which for a room is quicker: ARGS=tests/server/catalogue. What is slow by nature
# is left to `make slow`.
test: $(VENV)/.test
	$(BIN)/python -m pytest $(or $(ARGS),$(SPREAD))

# Each file on one process: its tests share what is made once. pytest ends with 5 where no test was chosen.
slow: $(VENV)/.test
	@$(BIN)/python -m pytest -m slow $(or $(ARGS),--numprocesses 2 --dist loadfile) || { \
		status=$$?; [ $$status -eq 5 ] || exit $$status; echo "No test here is marked as slow."; }

# Both in one run, which is quicker: while one test waits, another works.
test-all: $(VENV)/.test
	$(BIN)/python -m pytest -m "" $(SPREAD)

# A server of its own under load, in under two minutes; ARGS has the last word: ARGS="--host ... --slo p95=200ms".
bench: $(VENV)/.bench
	$(BIN)/python -m bench load --json bench/out/load.json --html bench/out/load.html $(ARGS)

# Damaged and hostile pictures and requests, through the decoder and a server: each is read or refused. A few minutes;
# ARGS="--seed 2".
fuzz: $(VENV)/.bench
	$(BIN)/python -m bench fuzz $(ARGS)

# Every pinned version: still offered, not withdrawn (the package index says so), and without a known vulnerability, which
# takes the internet. It fails where one has one, and where one could not be asked after. In an environment of its own.
audit-dependencies: $(VENV)/.bench
	$(BIN)/python -m bench dependencies $(ARGS)
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit; }
	.audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

setup: $(VENV)/.serve

# The program helm, for the tests of the chart, where the machine has none.
helm: $(BIN)/helm

$(BIN)/helm: deploy/helm/get_helm.py | $(VENV)/.test
	@echo "Fetching helm"
	@$(BIN)/python $< $(BIN) && touch $@

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Stamped when it is whole: an interrupted or half-made environment is made anew.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Twinlens needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) && $(BIN)/python -m pip --version >/dev/null || \
		{ echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.serve: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing the server ($(EXTRA))"
	@$(PIP) --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing the server, the export, the bench and the tests' tools ($(EXTRA)); the first time takes minutes"
	@$(PIP) --editable '.[$(EXTRA),export,bench,dev]'
	@touch $@ $(VENV)/.serve $(VENV)/.bench

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing the server and the bench ($(EXTRA))"
	@$(PIP) --editable '.[$(EXTRA),bench]'
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
