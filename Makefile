# Needs only python3 (with its venv module) and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint types test-slow schema clean

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

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
