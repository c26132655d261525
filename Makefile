# `make help` lists the targets. Each of them sets up .venv first if that has not been done yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo
# Processes that run tests at the same time; each needs up to 3 GB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist loadfile

.PHONY: setup help demo test test-slow explore lint format bench serve reference lock clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready  ## create .venv with the pinned packages (default)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

demo: setup  ## `trainer distill` on real reviews: teacher, augmentation, student, report (about 8 minutes)
	$(BIN)/python deploy/demo/demo.py --output $(DEMO)

test: setup  ## the fast tests (about 9 minutes on 2 cores of an AMD EPYC)
	$(PYTEST) -m "not slow"

test-slow: setup  ## the slow tests
	$(PYTEST) -m slow

explore: setup  ## the property tests on new random examples (the other targets repeat the same ones)
	HYPOTHESIS_PROFILE=explore $(PYTEST) -m hypothesis

lint: setup  ## what CI checks: lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/vulture augment_service trainer shared benchmarks deploy docs tests
	$(BIN)/python docs/check_prose.py

bench: setup  ## sentences per second of the engine
	$(BIN)/python benchmarks/augment.py

serve: setup  ## the HTTP service with the embedded models on http://127.0.0.1:8000
	$(BIN)/python -m augment_service serve --mlm embedded --glove embedded

reference: setup  ## regenerate docs/reference.md
	$(BIN)/python docs/make_reference.py > docs/reference.md

lock: setup  ## versions and hashes of the images' packages, with uv: deploy/locks
	$(BIN)/python deploy/lock.py

format: setup  ## fix lint findings and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and outputs
	rm -rf $(VENV) out build dist *.egg-info
