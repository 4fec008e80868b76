# Everything runs in .venv, which the first target makes; Python 3.11 or newer and make are all that is needed.

PYTHON ?= python3
# Two more than the cores of a small machine: a process waits for its Prefect server, or for a pause, half of the time.
JOBS ?= 4
BIN := .venv/bin
# Each process that a test starts would compile all modules again, and each test process all tests.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt
INSTALLED := .venv/.installed
DATABASE := .venv/prefect.db
SITE_TOOLS := .venv/.site-tools
SOURCES := rh_prefect flows blocks tests benchmarks website

.DEFAULT_GOAL := help
.PHONY: help install demo test tests test-long test-readme lint docs bench mutants constraints clean

help:
	@echo "make demo         make a film on this machine: no key, no network, nothing to pay (ARGS=--stay keeps the dashboard)"
	@echo "make install      only the package and its tools, in .venv"
	@echo "make test         the test suite, then lint, types and import contracts"
	@echo "make test-long    kills, faults, workers, the code of the docs, type checkers over samples, and the wheel"
	@echo "make test-readme  the README's commands, in their order, in an empty folder"
	@echo "make docs         the documentation as a website, in build/site (ARGS=--no-pictures is quick)"
	@echo "make bench        start-up, memory, long journals and speed, measured; two hours (SCENES='short overhead' for some of speed)"
	@echo "make mutants      random faults in the package that pays, which the tests must find; an hour (ARGS='--count 25')"
	@echo "make lint         ruff, mypy, import contracts, and whether generated files fit the catalogue"
	@echo "make constraints  write constraints.txt again from what is installed"
	@echo "make clean        remove .venv, caches and builds; films stay"

install: $(INSTALLED) $(DATABASE)

demo: $(INSTALLED)
	$(BIN)/rh-prefect demo $(ARGS)

# Side by side: a quarter of the time of the tests is waiting, which is enough for lint. Its lines come at the end.
test: $(INSTALLED) $(DATABASE)
	@$(MAKE) --no-print-directory lint > .venv/lint.log 2>&1 & lint=$$!; \
	$(MAKE) --no-print-directory tests; tests=$$?; \
	wait $$lint; linted=$$?; cat .venv/lint.log; [ $$tests = 0 ] && [ $$linted = 0 ]

# By file: each of the processes starts separate servers, and a file's tests share them. In the order of
# tests/conftest.py, so that no long file is the last.
tests: $(INSTALLED) $(DATABASE)
	$(BIN)/pytest -m "not long and not readme" --durations 20 -n $(JOBS) --dist loadfile --no-loadscope-reorder

# By file, as in `test`. A process waits half of the time; with four, their many servers on SQLite answer 503 on a small
# machine.
test-long: $(INSTALLED) $(DATABASE)
	$(BIN)/pytest -m long -n 3 --dist loadfile

# The README's commands in a separate folder: about ten minutes on a busy machine.
test-readme: $(INSTALLED) $(DATABASE)
	$(BIN)/pytest -m readme tests/project/test_readme_commands.py

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m rh_prefect.catalog.generated_files --check

docs: $(SITE_TOOLS)
	$(BIN)/python -m website.build $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.structure
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.file_transfer_memory
	$(BIN)/python -m benchmarks.large_run
	$(BIN)/python -m benchmarks.memory_growth
	$(BIN)/python -m benchmarks.slot_policy
	$(BIN)/python -m benchmarks.speed $(SCENES)

mutants: $(INSTALLED)
	$(BIN)/python -m benchmarks.mutation $(ARGS)

constraints: $(SITE_TOOLS)
	head -n 1 constraints.txt > .constraints.new
	$(BIN)/python -m pip freeze --exclude-editable | LC_ALL=C sort -f >> .constraints.new
	mv .constraints.new constraints.txt

# uv takes a quarter of pip's time. It does not know a mirror that only pip's settings name; then pip installs.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("$(PYTHON) is Python %d.%d; 3.11 or newer is needed. Name another: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Installs the package and its tools into .venv: 1.1 GB, half a minute on a quick network"
	$(PYTHON) -m venv .venv
	$(PIP) uv
	$(UV) -e ".[dev]" || $(PIP) -e ".[dev]"
	@touch $@

# Not in `dev`: a minute of installation and 110 MB, which no test needs.
$(SITE_TOOLS): $(INSTALLED)
	$(UV) -e ".[docs]" || $(PIP) -e ".[docs]"
	@touch $@

# A database that Prefect has migrated, which takes 9 s: the tests' servers start from copies of it.
$(DATABASE): $(INSTALLED)
	$(BIN)/python -m tests.support.servers.prefect_server $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find rh_prefect flows blocks tests benchmarks website -name __pycache__ -type d -prune -exec rm -rf {} +
