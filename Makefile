# make demo         predictions on photographs by a local server; IMAGE=path for a picture of yours
# make test         all tests; ARGS="-k inputs -x" goes to pytest
# make test-random  the property tests, with other random examples in every run
# make check        format, lint, types and layers
# make coverage     all tests; which lines of the client none of them runs
# make fuzz         random and malformed requests for ten minutes; SECONDS=60 for one
# make soak         64 threads, faults and restarts for ten minutes; SECONDS=60 for one
# make docs         the documentation, in site/index.html
# make bench        all benchmarks, short (about 10 minutes, twice that where others use the machine);
#                   ARGS="unary images" for some of them, ARGS="streams --only generate" for some rows
# make bench-compare REV=main~3  the benchmarks of this checkout and of a revision in turns; ARGS too
# make bench-full   long, on a machine that does nothing else; keeps results, plots, docs figures
#
# All make .venv first, with the packages that they need. PYTHON=python3.13 chooses an
# interpreter, VENV=path another place.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What an installation depends on: the packages, and the stubs that it compiles.
BUILD := pyproject.toml build_protos.py $(wildcard protos/clarigrpc/v2/*.proto)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: bench bench-compare bench-full check coverage demo docs fuzz soak test test-random
.DELETE_ON_ERROR:

ifdef IMAGE
demo: $(VENV)/.demo
	@$(BIN)/python demo/demo.py "$(IMAGE)"
else
demo: $(VENV)/.demo $(VENV)/.photos
	@$(BIN)/python demo/demo.py $(VENV)/photos/*.jpg
endif

# Those that measure time or memory run last and alone; only they are tried again when they fail.
test: $(VENV)/.test
	@$(BIN)/python -m tests.parts $(ARGS)

test-random: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m hypothesis --hypothesis-profile random $(ARGS)

check: $(VENV)/.test
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m mypy

coverage: $(VENV)/.test
	@$(BIN)/python -m tests.covered $(ARGS)

# Random anew each time, while the run in `make test` is short and always the same.
SECONDS ?= 600
fuzz: $(VENV)/.test
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest --timeout 0 tests/fuzz $(ARGS)

soak: $(VENV)/.test
	$(BIN)/python -m tests.soak --seconds $(SECONDS)

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs site
	@echo "site/index.html"

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

bench-compare: $(VENV)/.bench
	$(BIN)/python -m benchmarks.compare $(REV) $(ARGS)

bench-full: $(VENV)/.bench
	$(BIN)/python -m benchmarks --full $(ARGS)
	$(BIN)/python -m benchmarks.docs

$(VENV)/.demo: $(BUILD) | $(BIN)/pip
	@echo "Installing clarigrpc and what the demo needs into $(VENV) ..."
	@$(INSTALL) --editable '.[cli,local,rest]'
	@touch $@

# Has all that the demo needs, and more.
$(VENV)/.test: $(BUILD) | $(BIN)/pip
	@echo "Installing clarigrpc and what the tests need into $(VENV) ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.demo $@

$(VENV)/.docs: $(BUILD) | $(BIN)/pip
	@echo "Installing clarigrpc and what the documentation needs into $(VENV) ..."
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/.bench: $(BUILD) | $(BIN)/pip
	@echo "Installing clarigrpc and what the benchmarks need into $(VENV) ..."
	@$(INSTALL) --editable '.[bench]'
	@touch $@

$(VENV)/.photos: demo/photos.py | $(BIN)/pip
	@echo "Fetching two photographs ..."
	@$(BIN)/python demo/photos.py $(VENV)/photos
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "clarigrpc needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; \
	    exit 1; }
	@$(PYTHON) -m venv $(VENV)
