# From a bare clone, with Python 3.11 or later and pip: `make demo` and `make test` set themselves up.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types bench-tools lock clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

# Rival runtimes for `zeroskip bench`; what does not install here is left out of the tables.
bench-tools: $(READY)
	$(BIN)/python -m pip install --quiet -e '.[bench]'

# Names and versions only: no addresses, so that the file means the same everywhere.
lock: $(READY)
	@echo "# Versions the suite was last run with, on Python 3.11; written by \`make lock\`." > requirements-dev.lock
	$(BIN)/python -m pip freeze --exclude-editable | grep -v ' @ ' >> requirements-dev.lock

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "zeroskip needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
