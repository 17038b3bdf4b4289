# make run and make test need Python 3.11 or later, and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 6543
# The tests start hundreds of processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
# The lowest versions of the dependencies have wheels for the lowest Python.
OLDEST := .venv-oldest
OLDEST_PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo $(PYTHON))
# Each worker starts servers of its own. Three keep two cores busy, because many tests wait. One
# worker runs a whole file; the longest files come first.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder

# What happens on the wire. make test-deep runs these without the shortcuts too (sqa.shortcuts).
WIRE := $(addprefix tests/,engines/test_commit_is_known.py engines/test_ended_below.py \
	engines/test_interrupts.py engines/test_unheard_errors.py requests/test_outages.py \
	requests/test_swallowed_errors.py sessions/test_outside_the_transaction.py \
	sessions/test_commit_end.py)

NO_DRIVERS := echo 'Tests of mysqlclient, psycopg2 and PostgreSQL 16 are skipped: they cannot be installed.'

.DEFAULT_GOAL := help
.PHONY: help run test lint types tests test-deep coverage test-oldest format docs site clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

run: $(VENV)/ready-run  ## serve the demo on http://localhost:6543; make run PORT=8080
	@$(BIN)/python tools/free_port.py $(PORT)
	$(BIN)/pserve development.ini http_port=$(PORT)

test: lint types tests  ## lint, types and tests: what every change must pass

lint: $(VENV)/ready-test  ## check format and lint, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/ready-test  ## mypy strict and pyright
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/project/typing
	$(BIN)/pyright --pythonpath $(BIN)/python

tests: $(VENV)/ready-test  ## all tests but the deep ones
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not deep"

test-deep: $(VENV)/ready-test  ## the tests that sweep widely: each byte, each hook, many databases
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m deep
	SQA_TEST_PLAIN=1 $(BIN)/python -m pytest $(PYTEST_ARGS) $(WIRE)

# Tracing makes the tests half as fast again, so make test does without.
coverage: $(VENV)/ready-test  ## all tests, the deep ones too: they run every line and branch
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-oldest: $(OLDEST)/ready  ## all tests but the deep ones, with the lowest version of each dependency
	$(OLDEST)/bin/python -m pytest $(PYTEST_ARGS) -m "not deep"

format: $(VENV)/ready-test  ## format the code, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/ready-test  ## write the generated pages again
	$(BIN)/python tools/make_reference.py
	$(BIN)/python tools/make_settings.py
	$(BIN)/python tests/support/drivers.py

site: $(VENV)/ready-site  ## build the documentation as a web site: build/site/index.html
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/site
	$(BIN)/python tools/make_llms.py build/site

clean:  ## remove the virtual environments and what the tools left
	rm -rf $(VENV) $(OLDEST) build .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/ready-run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

# pip 25.1 is the first to know dependency groups.
$(VENV)/ready-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]' --group dev
	$(BIN)/python -m pip install --quiet --group drivers || $(NO_DRIVERS)
	touch $@

$(VENV)/ready-site: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --group site
	touch $@

$(OLDEST)/ready: pyproject.toml tools/lowest.py
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(OLDEST)/bin/python tools/lowest.py > $(OLDEST)/lowest.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/lowest.txt \
		--editable '.[demo,postgresql]' --group test
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/lowest.txt --group drivers || $(NO_DRIVERS)
	touch $@
