# `make` lists the targets. Everything is installed into .venv and .venv-colab, in the checkout;
# only `make chromium` installs a package of the system. A stamp in an environment records its
# installation, which is repeated when the metadata changes.

PYTHON ?= python3
ARGS ?=
NB ?= nbs/*.ipynb
PORT ?= 8000
SITE ?= build/site

BIN := .venv/bin
PIP := -m pip --quiet --disable-pip-version-check
# Python compiles a module when it is first imported; most of those installed never are.
# Images of containers often forbid Python to keep what it compiled. Then every process compiles
# PyTorch, which takes three times as long as importing what is compiled.
INSTALL := $(PIP) install --no-compile
unexport PYTHONDONTWRITEBYTECODE
METADATA := settings.ini setup.py pyproject.toml

.PHONY: help setup hooks demo test environments export notebooks readme docs preview dist chromium clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: .venv/installed-dev  ## make .venv with all that development and tests need

hooks: setup  ## let git clean the notebooks and write the modules before each commit
	@git config core.hooksPath tools/hooks

demo: .venv/installed  ## the whole method on real images, into runs/demo (options: ARGS="...")
	@$(BIN)/python -m cka_nb demo $(ARGS)

test:  ## run every notebook and test, the site, Colab (options of pytest: ARGS="...")
	@$(MAKE) --no-print-directory -j 3 environments
	@$(BIN)/python -m pytest -n 2 --durations 20 $(ARGS)

# all that the tests need, at the same time
environments: setup .venv-colab/installed chromium

export: setup  ## write the Colab cells, clean the notebooks' metadata, write cka_nb/ from them
	@$(BIN)/python tools/colab.py
	@$(BIN)/nbdev-clean
	@$(BIN)/nbdev-export

notebooks: export  ## run the notebooks and store their outputs (one: NB=nbs/00_tour.ipynb)
	@for nb in $(NB); do echo "$$nb"; $(BIN)/nbdev-test --save "$$nb" || exit 1; done
	@$(BIN)/nbdev-clean

readme: setup  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

docs: setup  ## build the site from the notebooks, into build/site (after `make export`)
	@rm -rf $(SITE)
	@$(BIN)/python -m sphinx -qWE --keep-going nbs $(SITE)
	@echo "$(SITE)/index.html"

preview: export docs  ## build the site and serve it on this machine (PORT=8000)
	@echo "http://127.0.0.1:$(PORT)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

dist: setup  ## build the source archive, and the wheel from it, into dist/ (a release: TAG=v0.2.0)
	@test -z "$(TAG)" || grep -qx "version = $(patsubst v%,%,$(filter v%,$(TAG)))" settings.ini \
		|| { echo "$(TAG) is not v and the version in settings.ini"; exit 1; }
	@rm -rf dist
	@$(BIN)/python -m build

chromium:  ## install Debian's browser, if there is none, for the tests of the site
	@command -v chromium chromium-browser google-chrome chrome >/dev/null || test -n "$(BROWSER_PATH)" \
		|| { apt-get update -qq && apt-get install -qqy --no-install-recommends chromium >/dev/null; } \
		|| { echo "Install Chromium or Chrome, or set BROWSER_PATH to one."; exit 1; }

clean:  ## remove what builds and tests leave behind (environments and runs/ stay)
	@rm -rf build dist *.egg-info .pytest_cache nbs/.ipynb_checkpoints
	@find cka_nb nbs tests tools -name __pycache__ -exec rm -rf {} +

.venv/bin/pip:
	@$(PYTHON) -m venv .venv

.venv/installed: $(METADATA) | .venv/bin/pip
	@echo "Installing cka_nb into .venv (minutes the first time: PyTorch is large) ..."
	@$(BIN)/python $(INSTALL) -e .
	@touch $@

.venv/installed-dev: $(METADATA) | .venv/bin/pip
	@echo "Installing cka_nb and its tests' needs into .venv (minutes the first time) ..."
	@$(BIN)/python $(INSTALL) -e ".[dev]"
	@touch .venv/installed $@

# the oldest versions we run on, which Colab has: no package of ours, no nbdev
.venv-colab/installed: settings.ini tools/oldest.py tools/colab.py
	@echo "Installing the oldest supported versions into .venv-colab (minutes the first time) ..."
	@$(PYTHON) -m venv .venv-colab
	@$(PYTHON) tools/oldest.py > .venv-colab/oldest.txt
	@.venv-colab/bin/python $(INSTALL) -r .venv-colab/oldest.txt ipykernel
	@touch $@
