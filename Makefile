# `make` alone lists the commands. Everything happens in .venv, which is made once and brought up
# to date when pyproject.toml or constraints.txt changes. Plain pip, as this machine configures it.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
INSTALL := $(RUN) pip install -qq --disable-pip-version-check

# Tests start hundreds of processes: none of them has to compile all again.
unexport PYTHONDONTWRITEBYTECODE

# Which Python makes the environment: `make test PYTHON=python3.13`. By default the first of these
# that is recent enough and can make environments.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3)

DEMO_ARGS ?=
TEST_ARGS ?=
TEST_JOBS ?= 3
SIM_ARGS ?= --seconds 300
BENCH_ARGS ?=
MATRIX_ARGS ?=
FUZZ ?= 20000
FUZZ_SEED := $(if $(FUZZ_SEED),$(FUZZ_SEED),$(shell date +%s))

##@ The two commands

.PHONY: demo
demo: $(VENV)/.demo ## Watch two devices edit offline and end equal (DEMO_ARGS=--once to exit after)
	$(BIN)/sharedlog demo $(DEMO_ARGS)

.PHONY: test
test: $(VENV)/.dev ## Run all tests (TEST_ARGS="-k capture" for some; TEST_JOBS=8)
	$(RUN) pytest -n $(TEST_JOBS) --dist loadscope --no-loadscope-reorder $(TEST_ARGS)

##@ While working

.PHONY: check
check: check-format check-lint check-types check-schema check-documents ## Check format, lint, types and written files

.PHONY: check-format
check-format: $(VENV)/.dev
	$(RUN) ruff format --check --output-format concise .

.PHONY: check-lint
check-lint: $(VENV)/.dev
	$(RUN) ruff check --output-format concise .

.PHONY: check-types
check-types: $(VENV)/.dev
	$(RUN) mypy

.PHONY: check-schema
check-schema: $(VENV)/.dev
	$(BIN)/sharedlog schema --check schema.graphql

.PHONY: check-documents
check-documents: $(VENV)/.dev
	$(RUN) tests.fixtures.documents --check

.PHONY: format
format: $(VENV)/.dev ## Format the code and sort the imports
	$(RUN) ruff check --fix-only --quiet .
	$(RUN) ruff format .

.PHONY: schema
schema: $(VENV)/.dev ## Write schema.graphql from the code
	$(BIN)/sharedlog schema --output schema.graphql

.PHONY: documents
documents: $(VENV)/.dev ## Write what the client sends into the file that the service knows it by
	$(RUN) tests.fixtures.documents

.PHONY: fixtures
fixtures: $(VENV)/.dev ## Write what this version leaves behind (tests/fixtures); never after its release
	$(RUN) tests.fixtures.make

.PHONY: sim
sim: $(VENV)/.dev ## Simulate for longer than the tests do (SIM_ARGS="--seed 42 --show" to replay one)
	$(RUN) tests.system.simulation $(SIM_ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## Send 20,000 requests and frames by chance to the service (FUZZ=200000 FUZZ_SEED=1 for others)
	@echo "FUZZ=$(FUZZ) FUZZ_SEED=$(FUZZ_SEED)"
	SHAREDLOG_TEST_FUZZ=$(FUZZ) SHAREDLOG_TEST_FUZZ_SEED=$(FUZZ_SEED) $(RUN) pytest -q tests/service/test_fuzz.py tests/service/test_fuzz_sockets.py

.PHONY: backlog
backlog: $(VENV)/.dev ## Send and receive a backlog of a million entries, and tell the memory it took
	SHAREDLOG_TEST_BACKLOG=1000000 $(RUN) pytest -q -s tests/system/test_backlog.py

.PHONY: matrix
matrix: $(VENV)/.dev ## Break networks and kill processes between real devices and a service (hours; MATRIX_ARGS="--seconds 20")
	$(RUN) tests.system.matrix $(MATRIX_ARGS)

.PHONY: plants
plants: $(VENV)/.dev ## Plant all bugs, and show which check caught each (the tests plant a sixth)
	PLANTS=all $(RUN) pytest -q tests/system/test_planted.py

.PHONY: bench
bench: $(VENV)/.dev ## Measure against limits of the same run (BENCH_ARGS=--quick for a minute)
	$(RUN) benchmarks $(BENCH_ARGS)

##@ The environment

.PHONY: constraints
constraints: $(VENV)/.dev ## Write constraints.txt from the environment
	@{ echo "# The versions that are tested together. Written by: make constraints"; \
	   $(RUN) pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
	     | LC_ALL=C sort -f; } > $(VENV)/constraints.txt
	@cp $(VENV)/constraints.txt constraints.txt
	@touch $(VENV)/.dev $(VENV)/.demo
	@echo "constraints.txt: $$(grep -c == constraints.txt) versions"

.PHONY: upgrade
upgrade: $(VENV)/.dev ## Take the newest versions that pyproject.toml allows, and pin them
	$(INSTALL) --upgrade --upgrade-strategy eager -e '.[dev]'
	@$(MAKE) --no-print-directory constraints

.PHONY: audit
audit: .venv-release/.ready ## Ask for known holes of what is pinned; fails where nobody can be asked
	.venv-release/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

.PHONY: sbom
sbom: .venv-release/.ready ## Write what a release is tested with into build/sbom.json (CycloneDX)
	@mkdir -p build
	.venv-release/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml -o build/sbom.json constraints.txt

# Apart from what is tested: these tools bring many packages of their own.
.venv-release/.ready: | $(BIN)/python
	@$(BIN)/python -m venv .venv-release
	@.venv-release/bin/python -m pip install -qq --disable-pip-version-check 'pip-audit>=2.9' 'cyclonedx-bom>=7'
	@touch $@

.PHONY: clean
clean: ## Remove the environment and everything that can be made again
	rm -rf $(VENV) .venv-release build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find client service tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that was moved or copied here would run the code of the place it came from.
ifneq "$(shell cat $(VENV)/.home 2>/dev/null)" "$(CURDIR)"
$(BIN)/python $(VENV)/.demo $(VENV)/.dev: FORCE
endif
$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  recent="$$candidate"; \
	  "$$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "Making $(VENV) with $$("$$candidate" --version)"; \
	  "$$candidate" -m venv --clear $(VENV) && pwd > $(VENV)/.home && exit 0; \
	  exit 1; \
	done; \
	if [ -n "$$recent" ]; then \
	  echo "$$recent cannot make environments: it lacks ensurepip or venv." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	else \
	  echo "Python 3.11 or later is needed; tried: $(CANDIDATES)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python" >&2; \
	fi; \
	exit 1

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sharedlog[demo] and what it needs in $(VENV)"
	@$(INSTALL) -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sharedlog[dev] and what it needs in $(VENV)"
	@$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.demo $@

.PHONY: FORCE
FORCE:

.PHONY: help
help: ## Show this
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
