# Two set-up commands: `make run` runs the main job, `make test` passes the tests. Both make .venv themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-all test-gpu test-versions check audit clean

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

run: $(VENV)/installed
	$(BIN)/autocut search --budget 5m

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m 'not gpu and not cluster'

test-gpu: $(VENV)/installed
	$(BIN)/python -m pytest -rs -m gpu tests/gpu

test-versions: $(VENV)/installed
	$(BIN)/python .ci/versions

check: $(VENV)/installed
	$(BIN)/ruff check autocut tests studies
	$(BIN)/ruff format --check autocut tests studies
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/installed
	PYTHON=$(PYTHON) .ci/audit $(BIN)/python

clean:
	rm -rf $(VENV) .audit .versions .mypy_cache .ruff_cache .pytest_cache dist
