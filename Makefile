# Needs python3 (3.11 or newer, with venv) and make. Everything is installed into .venv, nothing else is touched.
#
#   make demo         install, translate a bundled photo, say where the picture is
#   make test         install with the development tools, run the tests
#   make check        lint, types, layers
#   make bench        speed, memory and start-up against the plain reading of the original
#   make test-oldest  the tests once with the oldest supported torch and torchvision, in .venv-oldest
#
# PIP_FLAGS reaches every pip install: another index for torch, a proxy, a folder of wheels.

PYTHON ?= python3
PIP_FLAGS ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
OLDEST_PYTHON ?= python3.11
DEMO_PHOTO := tests/data/demo/sheep.jpg
DEMO_PICTURE := sheep_giraffe.png
INSTALL = -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS)
# One thread for each worker: more would only fight over the cores.
PYTEST := -m pytest -n $(JOBS)
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help demo test check lint types layers format bench wheel test-oldest clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "instapipe needs Python 3.11 or newer; choose one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (torch is large: this takes a minute or two)"
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[fast]'
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev,metrics,fast,train]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/instapipe translate $(DEMO_PHOTO) --source sheep --target giraffe --output $(DEMO_PICTURE)
	@echo "the picture: $(CURDIR)/$(DEMO_PICTURE)"

test: $(VENV)/.developing
	$(ONE_THREAD) $(BIN)/python $(PYTEST)

check: lint types layers

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.developing
	$(BIN)/mypy

layers: $(VENV)/.developing
	$(BIN)/lint-imports

bench: $(VENV)/.developing
	$(BIN)/python benchmarks/bench.py $(BENCH_FLAGS)

wheel: $(VENV)/.developing
	$(BIN)/python -m build --wheel

test-oldest:
	test -x $(OLDEST)/bin/python || $(OLDEST_PYTHON) -m venv $(OLDEST)
	sed -e 's/^torch==.*/torch==2.6.0/' -e 's/^torchvision==.*/torchvision==0.21.0/' -e '/^sympy==/d' \
		constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python $(INSTALL) -c $(OLDEST)/constraints.txt -e '.[dev,metrics,fast,train]'
	$(ONE_THREAD) $(OLDEST)/bin/python $(PYTEST)

clean:
	rm -rf build dist *.egg-info $(VENV) $(OLDEST)
