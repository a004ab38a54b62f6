# Everything a newcomer or CI types. Needs git, make and a Python 3.12; the rest is fetched.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# A uv that runs: pyenv leaves shims of tools that the chosen Python does not have.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .cache/uv/bin/uv)
PYTEST := $(BIN)/python -m pytest
JOBS ?= 2
# Slow tests wait much of their time: for servers that are dead, for processes that they killed.
SLOW_JOBS ?= 3
# Where this is set, each command that a test starts compiles every module anew, which takes most of its time.
export PYTHONDONTWRITEBYTECODE :=
# Tests of several workers share the cores.
test test-slow: export OMP_NUM_THREADS := 1

.PHONY: help demo setup test test-slow soak check format bench experiment few-labels docs lock clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

.cache/uv/bin/uv:
	python3 -m venv .cache/uv
	.cache/uv/bin/pip install --quiet --disable-pip-version-check uv

$(BIN)/python: | $(filter .cache/%,$(UV))
	$(UV) venv --quiet --allow-existing --python 3.12 $(VENV)

# What the commands need; no torch.
$(VENV)/.base: requirements.lock pyproject.toml README.md | $(BIN)/python
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.base
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	touch $@

$(VENV)/.models: requirements-models.lock $(VENV)/.dev
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-models.lock
	touch $@

demo: $(VENV)/.base ## build the demo region: a simulated archive, a cube, a report
	$(BIN)/sits-build --region demo --out out

setup: $(VENV)/.models ## the full environment in .venv, with torch and the tools of the developers

test: $(VENV)/.models ## the quick tests
	$(PYTEST) -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.models ## the slow tests: whole builds, killed and resumed
	# A file is run by one process: what its tests share, whole archives and datasets, is then made once.
	$(PYTEST) -n $(SLOW_JOBS) --dist loadfile --no-loadscope-reorder -m "slow and not soak"

soak: $(VENV)/.models ## minutes to hours, by hand
	$(PYTEST) -m soak

check: $(VENV)/.models ## format, lint, types, who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.models ## speed against the floor and the peers, memory against size; prints the table of docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks

experiment: $(VENV)/.models ## CSCL against random initialisation in three simulated regions; writes docs/results.md
	for region in tests/experiments/regions/*.yaml; do $(BIN)/sits-build --region $$region --out out/experiment-regions; done
	$(BIN)/python -m tests.experiments --jobs $(JOBS) --write

few-labels: $(VENV)/.models ## four pretrainings where labels are few, in a simulated region; writes docs/results.md
	for region in tests/experiments/few_labels/few-*.yaml; do $(BIN)/sits-build --region $$region --out out/few-regions; done
	$(BIN)/python -m tests.experiments.few_labels --jobs $(JOBS) --write

docs: $(VENV)/.dev ## the documentation as pages in site/
	$(BIN)/mkdocs build --strict

COMPILE = $(UV) pip compile --quiet --no-header --no-annotate --generate-hashes --python-version 3.12 \
	--constraint .cache/constraints.txt
lock: | $(BIN)/python ## resolve the versions anew
	mkdir -p .cache
	# stackstac, a peer in the benchmarks, does not run with pandas 3; the package itself does.
	echo "pandas<3" > .cache/constraints.txt
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --group test --group check --group docs --constraint requirements.lock --output-file requirements-dev.lock
	$(COMPILE) pyproject.toml --extra models --constraint requirements.lock --constraint requirements-dev.lock \
		--output-file requirements-models.lock

clean: ## remove what builds and tests left; keeps the environment
	rm -rf out site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
