# Every target first makes the virtual environment that it needs, once, with pinned versions.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# The commands of the examples must find the command snakemake.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# With PYTHONDONTWRITEBYTECODE, each of the thousands of processes of the tests would compile our packages, and each
# process of pytest the tests.
export PYTHONDONTWRITEBYTECODE :=
COMPILE = $(BIN)/python -m compileall -q executors snakemake_executor_flux snakemake_executor_plugin_flux_operator \
	airflow_provider_flux tests

.PHONY: help demo demo-airflow demo-nextflow test test-quick coverage lint bench clean

help:
	@echo "make demo          run a variant-calling workflow with snakemake --executor flux-operator"
	@echo "make demo-airflow  run it as a DAG in an Airflow that this starts; it serves until Ctrl-C"
	@echo "make demo-nextflow run it with the Nextflow on PATH (or NEXTFLOW=path)"
	@echo "make test          run all tests that this machine can run; REQUIRE=flux fails if Flux is missing"
	@echo "make test-quick    run the unit tests, in 20 seconds"
	@echo "make coverage      show which lines the unit tests reach"
	@echo "make lint          run ruff and mypy, check import rules and plain words"
	@echo "make bench         measure speed and memory; write docs/benchmarks.md"

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed (on Debian: apt install python3-venv); name one by PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (once)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[snakemake,airflow,examples,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/demo.py

demo-airflow: $(STAMP)
	@$(BIN)/python examples/airflow/demo.py

NEXTFLOW ?= nextflow
demo-nextflow: $(STAMP)
	@NEXTFLOW='$(NEXTFLOW)' $(BIN)/python examples/nextflow/demo.py

# Almost half of the time, tests wait for Flux, Airflow or a kubelet: four at a time keep two cores busy. To run one at a
# time: make test WORKERS=0
WORKERS ?= 4
test: $(STAMP)
	@$(COMPILE)
	$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

# A separate target, because a traced process takes twice as long, and most tested code runs in untraced processes.
coverage: $(STAMP)
	@$(COMPILE)
	$(BIN)/python -m pytest tests/unit tests/contract/test_jobs.py --cov --cov-report=term

test-quick: $(STAMP)
	@$(COMPILE)
	$(BIN)/python -m pytest tests/unit -q -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.words

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .venv-peer .venv-peer-tasks demo-output build *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
