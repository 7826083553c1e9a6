# Needs only python3 (with its venv module) and make; everything else is installed into .venv, and into .venv-nncf2.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NNCF2 := .venv-nncf2
NNCF2_STAMP := $(NNCF2)/.installed
# What depends on NNCF: the trace, hooks, subnets and their exports, the flow; and one loop of training.
NNCF2_TESTS := tests/nncf2 tests/test_nncf.py tests/test_oracle.py tests/test_active_subnet.py tests/test_supernet.py \
  tests/test_extraction.py --deselect tests/test_extraction.py::test_the_same_for_models_that_people_use \
  tests/test_flow.py tests/training/test_loop.py tests/compat tests/config/test_nncf2.py \
  tests/elasticity/test_nncf2_names.py tests/tools/test_convert_checkpoint.py

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-nncf2 lint types test-slow schema clean

help:  ## Show the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

install: $(STAMP)  ## Make .venv and install the package with the dev and samples extras

# The stamp makes set-up run once, and again when the dependencies change.
$(STAMP): setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev,samples]'
	touch $(STAMP)

quickstart: install  ## Train, search and export on the handwritten digits
	$(BIN)/python samples/classification/main.py --config samples/classification/configs/digits.json --output-dir runs/quickstart --resume

test: lint types  ## Lint, check types and run the fast tests
	$(BIN)/python -m pytest

# NNCF 2.19 is the last release with a create_compressed_model of its own; it needs an environment for itself.
$(NNCF2_STAMP): setup.py pyproject.toml
	$(PYTHON) -m venv $(NNCF2)
	$(NNCF2)/bin/python -m pip install --editable '.[samples,tests]' 'nncf==2.19.*' || { \
	  echo "NNCF 2.19 cannot be installed for $$($(PYTHON) --version); give another one: make PYTHON=python3.11" >&2; \
	  exit 1; }
	touch $(NNCF2_STAMP)

test-nncf2: $(NNCF2_STAMP)  ## Run the tests that NNCF 2.19 is tried with, in .venv-nncf2
	NNCF_TORCH_LEGACY_TRACING=1 $(NNCF2)/bin/python -m pytest $(NNCF2_TESTS)

lint: install  ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install  ## Check types
	$(BIN)/mypy

test-slow: install  ## Run the slow tests only
	$(BIN)/python -m pytest -m slow

schema: install  ## Regenerate schemas/bootstrapnas.schema.json and the tables of docs/config.md
	$(BIN)/python -m bootstrapnas_ext.config

clean:  ## Remove build artefacts and caches; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
