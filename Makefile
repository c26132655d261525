# Everything a person needs: `make demo`, `make test`. Each target sets up .venv first when that is not done yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

.PHONY: setup demo test test-slow lint bench serve reference clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python deploy/demo/demo.py --output $(DEMO)

test: setup
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -q -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/vulture augment_service trainer shared benchmarks deploy docs tests
	$(BIN)/python docs/check_prose.py

bench: setup
	$(BIN)/python benchmarks/augment.py

serve: setup
	$(BIN)/python -m augment_service serve --mlm embedded --glove embedded

reference: setup
	$(BIN)/python docs/make_reference.py > docs/reference.md

clean:
	rm -rf $(VENV) out build dist *.egg-info
