# `make serve` and `make test` are all that a new user needs; each sets up what it wants and does it only once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Every TWINLENS_ variable reaches the server by itself; `make serve PORT=9000` works as well.
SETTINGS := HOST PORT DATA MODEL PRECISION DEVICE DATABASE_URL MEDIA_URL DEADLINE MAX_UPLOAD MAX_PIXELS DEMO TRUST_NETWORK
GIVEN := $(foreach name,$(SETTINGS),$(if $(filter command,$(firstword $(origin $(name)))),TWINLENS_$(name)='$($(name))'))

.PHONY: serve test setup check format clean

serve: $(VENV)/.serve
	@TWINLENS_DEMO=$${TWINLENS_DEMO:-on} $(GIVEN) exec $(BIN)/python -m server

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

setup: $(VENV)/.serve

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Twinlens needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# With the GPU build of ONNX Runtime where there is an NVIDIA driver, else the CPU build; EXTRA=gpu or EXTRA=cpu decides.
EXTRA ?= $(if $(shell command -v nvidia-smi),gpu,cpu)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the server ($(EXTRA))"
	@$(PIP) --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the server, the export, the bench and the tests' tools ($(EXTRA)); the first time takes minutes"
	@$(PIP) --editable '.[$(EXTRA),export,bench,dev]'
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
