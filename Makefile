# Two commands matter: `make demo` and `make test`. Both work on a fresh clone with nothing but Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test lint docs bench clean

setup: .venv/.dev

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.user: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing learnmech into .venv ..."
	$(PIP_INSTALL) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP_INSTALL) -e .
	@touch $@

.venv/.dev: .venv/.user
	@echo "installing the development tools into .venv ..."
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

demo: .venv/.user
	$(BIN)/learnmech demo --out runs/demo

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

test: .venv/.dev
	$(MAKE) -j2 lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: .venv/.user
	@for script in benchmarks/*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv docs/_build runs .mypy_cache .ruff_cache .pytest_cache
