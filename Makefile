# Causerie. `make demo` and `make test` are the two commands; the rest is for those who change things.
# ARGS passes arguments on:  make demo ARGS="--no-serve --json"
# PIP_ARGS goes to pip:      make install PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
STARTER ?= 1
PORT ?= 8321
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test install lint format bench docs page conformance clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo:  ## set up, run the whole circle offline, then serve the page (STARTER=0 leaves the starter out)
	@$(PYTHON) scripts/bootstrap.py train files $(if $(filter 0,$(STARTER)),,starter?)
	@STARTER=$(STARTER) $(BIN)/causerie demo --port $(PORT) $(ARGS)

test:  ## set up and run the tests (ARGS="-k name" chooses)
	@$(PYTHON) scripts/bootstrap.py train test
	@$(BIN)/pytest -n 2 $(ARGS)

install:  ## only the .venv, with everything
	@$(PYTHON) scripts/bootstrap.py train test lint starter?

lint:  ## ruff, types, the import rule
	@$(PYTHON) scripts/bootstrap.py train test lint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

format:  ## let ruff lay out the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench:  ## side-by-side measurements (bench/README.md)
	@$(PYTHON) scripts/bootstrap.py train test
	@for b in bench/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

docs:  ## write the generated pages of docs/reference
	@$(BIN)/python scripts/make_docs.py

page:  ## rebuild the page (needs Node) into causerie/chat/page
	@cd page && npm ci --no-audit --no-fund && npm run build

conformance:  ## the openai SDK's own tests against our server (needs the package index once)
	@$(PYTHON) scripts/bootstrap.py train test
	@$(BIN)/python scripts/sdk_conformance.py $(ARGS)

clean:  ## remove what the tools leave behind (never the workspace)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
