# Everything runs in .venv, which is made from the locks on first use and kept while they do not change.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Importing torch and transformers takes twice as long where nothing keeps the compiled modules.
unexport PYTHONDONTWRITEBYTECODE
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What training needs; `make demo` takes no more.
.venv/.job: requirements/job.txt requirements/uv.txt requirements/setup requirements/settings.sh pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; set PYTHON to one, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (torch with its CUDA libraries is about 3 GB; once)"
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" requirements/setup job
	@touch $@

# The developers' tools beside it, at the same versions of what both need.
.venv/.ready: .venv/.job requirements/dev.txt
	@echo "Adding the developers' tools to .venv"
	@requirements/setup dev
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Make the virtual environment

.PHONY: demo
demo: .venv/.job ## Fine-tune on the Python language reference, without any network
	$(BIN)/python -m lmft_job.cli demo

.PHONY: test
test: setup ## Tests without a cluster and without a network
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: attacks
attacks: setup ## Try hostile input of every kind and print how much of it had an effect
	PYTHONPATH=tests $(BIN)/python -m attacks

.PHONY: lint
lint: setup lint-chart ## Style, types, import contracts, charts, locks
	requirements/lock --check
	$(MAKE) site
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

.PHONY: site
site: setup ## The documentation as a site, in build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file site/mkdocs.yml

.PHONY: format
format: setup ## Format the code
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

.PHONY: generate
generate: setup ## Write again what is generated from the types
	$(BIN)/python -m lmft_api.crd > charts/lmfinetune/files/crd.yaml
	$(BIN)/python -m lmft_api.reference docs
	$(BIN)/python charts/release.py charts/lmfinetune --version "$$($(BIN)/python release/version.py)"
	$(BIN)/python -m lmft_operator.values_schema charts/lmfinetune/values.yaml > charts/lmfinetune/values.schema.json

.PHONY: bench
bench: setup ## Measure preprocessing, training, evaluation, checkpoints, live progress and the start against their peers
	for name in preprocess train evaluation checkpoint progress start; do $(BIN)/python bench/$$name.py; done

.PHONY: sweep
sweep: setup ## Train every model type that transformers lists, and write docs/model-types.md; KINDS="bert gpt2" for some
	HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONPATH=tests $(BIN)/python -m sweep $(KINDS)

.PHONY: compat
compat: setup ## Load what lmft run publishes with transformers 4.57 too, and compare what it answers
	HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONPATH=tests $(BIN)/python -m compat

.PHONY: real
real: setup ## Fine-tune a pretrained chat model of 135M with LoRA, and load the result with pipeline(); takes minutes
	HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONPATH=tests $(BIN)/python -m real

.PHONY: lock
lock: setup ## Pin the newest allowed versions in requirements/
	@requirements/lock

.PHONY: clean
clean: ## Remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache runs

-include charts/chart.mk tests/cluster/cluster.mk
