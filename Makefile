# Everything runs in a virtual environment of its own, made on first use from pinned versions.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools
# The tests start thousands of processes, which read compiled modules much faster.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install engine demo solar test chaos lint bench lock clean

help:  ## Show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(TOOLS): requirements-build.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements-build.txt
	@touch $@

$(STAMP): requirements.txt pyproject.toml $(TOOLS)
	$(PIP) --require-hashes -r requirements.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP)  ## Make the virtual environment

engine: $(TOOLS)  ## Build the local stack's engine, which needs little of the environment
	@$(BIN)/python -m scythe.cli dev build

demo:  ## Run the solar example: local stack, local Ray, at least 64 designs
	@$(MAKE) --no-print-directory --jobs=2 engine solar

# Its database is made while the engine is built; then it waits for the engine.
solar: $(STAMP)
	$(BIN)/python examples/solar/demo.py

test: $(STAMP)  ## Run all tests on real services
	$(BIN)/scythe dev build
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 3

chaos: $(STAMP)  ## Break services and nodes under runs; writes docs/reliability.md (Linux, root)
	$(BIN)/scythe dev build
	SCYTHE_CHAOS_PAGE=docs/reliability.md $(BIN)/python -m pytest -m chaos tests/chaos

lint: $(STAMP)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)  ## Measure, and write docs/performance.md
	$(BIN)/python -m benchmarks.report

lock:  ## Pin the newest versions that pyproject.toml allows
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.txt
	$(VENV)-lock/bin/uv pip compile requirements-build.in --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements-build.txt
	rm -rf $(VENV)-lock

clean:  ## Remove the virtual environment and what tools left
	rm -rf $(VENV) .pytest_cache .ruff_cache dist build
