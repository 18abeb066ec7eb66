# What a checkout can do. Needs only make and a Python >= 3.11 with its venv module: everything
# else goes into .venv, on first use. Another interpreter: make run PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

# In this order, so that what is quick to run and to understand fails first.
SUITES := $(wildcard $(addprefix tests/,tidy unit property sim fuzz oracle hostile embedded clients faults mutation))
# Where Linux has something of its own, these hold its portable twin too.
PORTABLE := $(wildcard tests/unit/host tests/unit/server tests/clients/test_smoke.py)

.DEFAULT_GOAL := help
.PHONY: help run install dev test portable soak lint fmt bench bench-check bench-page techniques clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(VENV)/.installed ## Start the broker in the foreground; ARGS="--listen 127.0.0.1:9999" passes options
	@exec $(BIN)/ottla serve $(ARGS)

install: $(VENV)/.installed ## Set up .venv alone: the program is then .venv/bin/ottla

dev: $(VENV)/.installed-dev ## Set up what the tests need as well

test: dev ## Every test but the long ones; ARGS="-k fetch -x" passes options to pytest
	$(PYTEST) -rs $(SUITES) $(ARGS)
	@$(MAKE) --no-print-directory portable

portable: dev ## The tests of host, server and a smoke test again, with every portable fallback forced
	OTTLA_PORTABLE=1 $(PYTEST) -rs $(PORTABLE)

soak: dev ## The long tests too: all flights, many more random cases and kills
	OTTLA_SOAK=1 $(PYTEST) -rs --timeout=7200 $(SUITES) $(ARGS)

lint: dev ## Style, types, the layers, and what is generated
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@for tool in $(wildcard tools/gen_*.py); do \
	  echo "$(BIN)/python $$tool --check"; $(BIN)/python $$tool --check || exit 1; done

fmt: dev ## Let ruff format the code and mend what it can
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: dev ## What requests cost the broker, beside a bare loop; ARGS="fetch --rounds 9" passes others
	$(BIN)/ottla bench $(or $(ARGS),produce)

bench-check: dev ## Whether the hot path is dearer than recorded; only says so
	$(BIN)/ottla bench check docs/bench-ratios.json $(ARGS)

bench-page: dev ## Measure everything (under 25 minutes) and write the tables of docs/performance.md; ARGS="--peer …"
	$(BIN)/ottla bench page docs/performance.md $(ARGS)

techniques: dev ## Each technique with and without (under 5 minutes), as docs/techniques.html; on a quiet machine
	$(BIN)/ottla bench techniques --html docs/techniques.html $(ARGS)

clean: ## Remove .venv and caches; keeps data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ottla needs Python 3.11 or newer, and '$(PYTHON)' is older or not there." \
	    "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps depend on what names the packages; the package itself is installed editable.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[client]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed
