# `make` lists the targets. Everything is installed into .venv, nothing outside the checkout.
# A stamp in .venv records an installation; it is repeated when the metadata changes.

PYTHON ?= python3
ARGS ?=
NB ?= nbs/*.ipynb

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
METADATA := settings.ini setup.py pyproject.toml

.PHONY: help setup demo test export notebooks readme dist clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: .venv/installed-dev  ## make .venv with all that development and tests need

demo: .venv/installed  ## the whole method on real images, into runs/demo (options: ARGS="...")
	@$(BIN)/python -m cka_nb demo $(ARGS)

test: setup  ## run every notebook and every test (options of pytest: ARGS="...")
	@$(BIN)/python -m pytest $(ARGS)

export: setup  ## clean the notebooks' metadata and write cka_nb/ from them
	@$(BIN)/nbdev-clean
	@$(BIN)/nbdev-export

notebooks: export  ## run the notebooks and store their outputs (one: NB=nbs/00_tour.ipynb)
	@for nb in $(NB); do echo "$$nb"; $(BIN)/nbdev-test --save "$$nb" || exit 1; done
	@$(BIN)/nbdev-clean

readme: setup  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

dist: setup  ## build the source archive, and the wheel from it, into dist/
	@$(BIN)/python -m build

clean:  ## remove what builds and tests leave behind (.venv and runs/ stay)
	@rm -rf build dist *.egg-info .pytest_cache
	@find . -path ./.venv -prune -o -name __pycache__ -exec rm -rf {} +

.venv/bin/pip:
	@$(PYTHON) -m venv .venv

.venv/installed: $(METADATA) | .venv/bin/pip
	@echo "Installing cka_nb into .venv (minutes the first time: PyTorch is large) ..."
	@$(PIP) install -e .
	@touch $@

.venv/installed-dev: $(METADATA) | .venv/bin/pip
	@echo "Installing cka_nb and its tests' needs into .venv (minutes the first time) ..."
	@$(PIP) install -e ".[dev]"
	@touch .venv/installed $@
