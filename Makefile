# Two commands for a newcomer: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow check modules screenshots vendor clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit(f"tinyfit needs Python 3.11 or newer, but $(PYTHON) is {v}: run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m service.demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

modules:  # every module and what it holds
	@$(PYTHON) docs/modules.py

screenshots: $(STAMP)  # pictures of the page, of real jobs: needs chromium and a few minutes
	$(BIN)/python docs/screenshots.py

vendor: $(STAMP)  # the libraries of the page, fetched again by npm and checked
	$(BIN)/python -m service.dashboard.vendor

clean:
	rm -rf $(VENV) build *.egg-info
