# `make demo` and `make test` set up their own .venv from nothing and do their job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A file's tests on one worker, files in the order that tests/conftest.py puts them.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint types tests test-numeric clean

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: this needs Python 3.11 or newer\nhint: make PYTHON=python3.11 $(MAKECMDGOALS)" or 0)'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m scripts.demo --out build/demo

test: lint types tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

tests: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS)

# Numbers hold on another machine: at AVX2 where the processor has more, and with two threads, which
# wait without spinning for one another. The graphs in ONNX Runtime, which knows no such level of
# torch's, run with two threads only.
NUMERIC := $(BIN)/python -m pytest $(WORKERS) -m numeric tests/model tests/parity tests/graph

test-numeric: $(STAMP)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(NUMERIC) \
	  --ignore tests/graph/instance/test_golden_graphs.py
	OMP_WAIT_POLICY=PASSIVE TEST_THREADS=2 $(NUMERIC)

clean:
	rm -rf $(VENV) build
