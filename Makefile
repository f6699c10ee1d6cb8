# Every target sets itself up: Python >= 3.11, pip, make and git are all it needs.
# Another Python: make PYTHON=python3.12 test. One test file: make test PYTEST_ARGS="tests/core -x".

PYTHON ?= python3
JOBS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Without the optional packages their tests would be skipped.
DEV_EXTRAS := dev,onnx,milp,cluster
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# On a shared machine, waiting OpenMP threads must not spin.
THREADS := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# Neighbours stay in one process, which keeps what they share; compiled tests are kept for the next run.
PYTEST := PYTHONDONTWRITEBYTECODE= $(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test quick test-slow mutants fuzz errors check format operations clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.core ## train, certify, attack and compare on real digits, ending in a report
	OMP_WAIT_POLICY=PASSIVE $(BIN)/certus demo

test: $(VENV)/.dev ## the tests, without the slow ones
	$(PYTEST)

quick: $(VENV)/.dev ## two cases of every test that is not long: under a minute
	$(PYTEST) --quick

test-slow: $(VENV)/.dev ## the slow tests alone
	$(PYTEST) -m slow

mutants: $(VENV)/.dev ## break what soundness rests on, line by line: tests must go red
	$(THREADS) $(BIN)/python -m tests.mutants --jobs $(JOBS)

fuzz: $(VENV)/.dev ## run models at points chosen to hurt, where certificates are about to fall
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -W ignore -m tests.fuzz.evaluations

errors: $(VENV)/.dev ## measure the rounding errors of functions that the guard charges
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m docs.tools.errors

check: $(VENV)/.dev ## format, lint, types, layers, structure
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(THREADS) $(BIN)/python -m pytest -q tests/test_structure.py

format: $(VENV)/.dev ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

operations: $(VENV)/.dev ## rewrite docs/operations.md
	$(BIN)/python -m docs.tools.operations

clean: ## remove the environment and everything generated
	rm -rf $(VENV) build dist certus-demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: Certus needs Python 3.11 or newer, '$(PYTHON)' is not: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@# Some systems ship venv without ensurepip: then their own pip puts pip into the environment.
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
	  { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@echo "installing Certus into $(VENV)"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing the development tools into $(VENV)"
	@$(INSTALL) -e '.[$(DEV_EXTRAS)]'
	@touch $@
