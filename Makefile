# Two commands: `make repro` runs the whole pipeline, `make test` checks the project.

PYTHON ?= python3
ENVIRONMENT := .venv/installed
SEEDS ?= 1 2 3 4
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUNBUFFERED := 1

.PHONY: help repro seeds test check fuzz torture lint ablation tables bench lab data clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

repro: data  ## run what is out of date of the pipeline, and say what to open
	dvc repro
	@python -m tlee summary
	@python -m tlee compare || true

seeds: data  ## train with further seeds, and compare all trainings; SEEDS="1 2 3 4", each as long as `make repro`
	python -m tlee seeds $(SEEDS)

test: data lint  ## lint, formatting, types and all tests
	$(PYTEST)

check: data lint  ## the same with the fast tests only: about a minute on two cores
	$(PYTEST) -m "not slow"

fuzz: $(ENVIRONMENT)  ## damage files of every format at random, 2,500 times: about a minute
	TLEE_FUZZ=2500 OMP_NUM_THREADS=1 pytest -s tests/robustness/test_fuzz.py

torture: data  ## kill each stage seven times, fill its disk twice, compare the results: twenty minutes, only on Linux
	mkdir -p runs/torture
	unshare --map-root-user --mount sh -ec 'mount -t tmpfs -o size=1500m tmpfs runs/torture; \
		PYTHONPATH=tests OMP_NUM_THREADS=1 python -m support.torture runs/torture results/plots/torture.csv'

lint: $(ENVIRONMENT)  ## lint, formatting and types
	ruff check .
	ruff format --check .
	mypy

ablation: $(ENVIRONMENT)  ## vary one part after the other, on what `make repro` made: about ten minutes
	python -m tlee run ablation

tables: $(ENVIRONMENT)  ## all runs and DVC experiments as tables for a paper, and beside published numbers
	python -m tlee run tables

bench: $(ENVIRONMENT)  ## time real exits, sweeps, stage 5, input and training as ratios, with random weights: six minutes
	python -m tlee bench --to results/plots/bench.csv

lab: data  ## open JupyterLab on the notebooks
	python -m tlee lab

data: $(ENVIRONMENT)  ## bring the demo clips from the repository's own DVC remote
	@python -m json.tool .dvc/tmp/rwlock > /dev/null 2>&1 || rm -f .dvc/tmp/rwlock  # cut short by a full disk
	@dvc pull --quiet data.dvc

clean:  ## remove the environment and unfinished training, keep results
	rm -rf .venv runs

$(ENVIRONMENT): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "error: Python 3.11 to 3.13 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check -r requirements.txt
	pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
