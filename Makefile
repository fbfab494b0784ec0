# All commands of the project. They work in .venv, which the first one makes; nothing else on the machine changes.

VENV := .venv
TOOLS_VENV := .venv-tools
PYTHON_IN_VENV := $(VENV)/bin/python
PIP_OPTIONS := --disable-pip-version-check --no-input --quiet
PIP := $(PYTHON_IN_VENV) -m pip $(PIP_OPTIONS)

# Stamps: what is installed already, so that a command needs no network once its requirements are there.
RUN := $(VENV)/.run-requirements
DEV := $(VENV)/.dev-requirements
PACKAGE := $(VENV)/.package
TOOLS := $(TOOLS_VENV)/.tools-requirements

LOCK := $(VENV)/bin/uv pip compile pyproject.toml --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

# In CI a skipped test is a failure: what could not be tried there was not tried at all.
STRICT := $(if $(CI),-p ci_plugin)
PYTEST := PYTHONPATH=tests $(PYTHON_IN_VENV) -m pytest $(STRICT)

# pyright would otherwise look for a newer release of itself at each start.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Hundreds of processes start in a test run: without bytecode each would compile all of src anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run psql migrate up down logs check format-check format lint types contract test soak bench docs site lock clean install

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUN) $(PACKAGE) ## Start PostgreSQL, API, worker and maintainer at http://localhost:3000; Ctrl-C stops all
	@$(VENV)/bin/jobyard dev

psql: $(RUN) $(PACKAGE) ## Open psql on the embedded PostgreSQL of `make run`; ARGS="-c 'SELECT 1'" runs a statement
	@$(PYTHON_IN_VENV) -m jobyard.store.embedded $(ARGS)

migrate: $(if $(value DATABASE_URL),$(RUN) $(PACKAGE)) ## Bring the schema up to date: of DATABASE_URL, or of the containers of `make up`
	@$(if $(value DATABASE_URL),$(VENV)/bin/jobyard,sh scripts/compose.sh) migrate

up: ## Build the image and start all of it in containers at http://localhost:3000; returns once they are healthy
	@sh scripts/compose.sh up --detach --build --wait

down: ## Stop and remove the containers; the data stays in its volume
	@sh scripts/compose.sh down

logs: ## Follow the logs of the containers; ARGS="api worker" chooses some
	@sh scripts/compose.sh logs --follow $(ARGS)

check: format-check lint types contract test ## Format, lint, types, import contract and all tests

format-check: $(DEV) ## Tell what `make format` would change
	@$(VENV)/bin/ruff format --check .

format: $(DEV) ## Format all Python files
	@$(VENV)/bin/ruff check --quiet --fix --select I .
	@$(VENV)/bin/ruff format .

lint: $(DEV) ## Look for faults and for what reads badly (ruff)
	@$(VENV)/bin/ruff check .

types: $(DEV) $(PACKAGE) ## Check the types (pyright, strict)
	@$(PYTHON_IN_VENV) -m pyright

contract: $(DEV) $(PACKAGE) ## Check who imports whom (import-linter)
	@$(VENV)/bin/lint-imports --no-cache

test: $(DEV) $(TOOLS) $(PACKAGE) ## Run all tests; ARGS="tests/store -k claim" runs some
	@$(PYTEST) $(ARGS)

soak: $(DEV) $(PACKAGE) ## Run the tests that take many minutes
	@$(PYTEST) -m soak $(ARGS) || { code=$$?; [ $$code -eq 5 ] && echo "no test is marked soak yet: nothing was run" || exit $$code; }

bench: $(RUN) $(PACKAGE) ## Measure this machine: SCENARIO=create, drain, named, life, latency or bloat (all); ARGS="--jobs 1000 --json"
	@for scenario in $(or $(SCENARIO),create drain named life latency bloat); do \
		$(VENV)/bin/jobyard bench $$scenario $(ARGS) || exit $$?; done

docs: $(DEV) $(PACKAGE) ## Draw the parts of docs/ that the code says
	@$(PYTHON_IN_VENV) scripts/document.py

site: $(TOOLS) ## Build the documentation as a site, in site/index.html; a broken link is a failure
	@NO_MKDOCS_2_WARNING=1 $(TOOLS_VENV)/bin/mkdocs build --strict

install: $(DEV) $(TOOLS) $(PACKAGE) ## Install all that the other commands need

lock: $(DEV) ## Pin what pyproject.toml names, with hashes, in requirements/; UPGRADE=1 takes newer releases
	@$(LOCK) --extra embedded --group build --output-file requirements/run.txt
	@$(LOCK) --all-extras --group build --group dev --constraint requirements/run.txt --output-file requirements/dev.txt
	@$(LOCK) --extra otel --extra gcp --extra nats --group build --constraint requirements/dev.txt --output-file requirements/image.txt
	@$(LOCK:pyproject.toml=) --group tools --constraint requirements/dev.txt --output-file requirements/tools.txt

clean: ## Remove .venv, caches and build output; the data of `make run` stays
	rm -rf $(VENV) $(TOOLS_VENV) build dist site src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON_IN_VENV):
	@python=$$(sh scripts/find-python.sh) && echo "making $(VENV) with $$python" && $$python -m venv --clear $(VENV)

$(RUN): requirements/run.txt | $(PYTHON_IN_VENV)
	@echo "installing what Jobyard needs to run"
	@$(PIP) install --require-hashes --requirement requirements/run.txt
	@touch $@

# What is needed to run is in there too, at the same versions.
$(DEV): requirements/dev.txt | $(PYTHON_IN_VENV)
	@echo "installing what the checks need"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@ $(RUN)

$(TOOLS): requirements/tools.txt | $(PYTHON_IN_VENV)
	@echo "installing the programs that check what is not Python"
	@$(PYTHON_IN_VENV) -m venv --clear $(TOOLS_VENV)
	@$(TOOLS_VENV)/bin/python -m pip $(PIP_OPTIONS) install --require-hashes --requirement requirements/tools.txt
	@touch $@

# The build backend is among the requirements: an isolated build would fetch it anew, past the hashes.
$(PACKAGE): pyproject.toml | $(RUN)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
