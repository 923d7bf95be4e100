# Every target sets up what it needs itself: a virtual environment with pinned versions, made once.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# Snakemake's command has to be found by the examples' own commands.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Where PYTHONDONTWRITEBYTECODE is set, each of the thousands of processes of the tests would compile our packages anew.
COMPILE = $(BIN)/python -m compileall -q executors snakemake_executor_flux snakemake_executor_plugin_flux_operator \
	airflow_provider_flux tests

.PHONY: help demo demo-airflow demo-nextflow test test-quick coverage lint bench clean

help:
	@echo "make demo          a variant-calling workflow through snakemake --executor flux-operator"
	@echo "make demo-airflow  the same as a DAG in an Airflow of its own, which serves until Ctrl-C"
	@echo "make demo-nextflow the same by a Nextflow on PATH (or NEXTFLOW=path), its tasks Flux jobs"
	@echo "make test          all tests that this machine can run; REQUIRE=flux fails where Flux is missing"
	@echo "make test-quick    the unit and contract tests, in under a minute"
	@echo "make coverage      which lines the unit tests reach"
	@echo "make lint          ruff, mypy, import rules"
	@echo "make bench         speed and memory, written to docs/benchmarks.md"

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

# Most tests wait, for Flux, Airflow or a kubelet, most of the time. One at a time: make test WORKERS=0
WORKERS ?= 2
test: $(STAMP)
	@$(COMPILE)
	$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

# Apart: a traced process takes twice as long, and most of what is tested runs in processes that are not traced.
coverage: $(STAMP)
	@$(COMPILE)
	$(BIN)/python -m pytest tests/unit tests/contract/test_jobs.py --cov --cov-report=term

test-quick: $(STAMP)
	@$(COMPILE)
	$(BIN)/python -m pytest tests/unit tests/contract/test_jobs.py -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .venv-peer demo-output build *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
