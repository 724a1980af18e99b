# Every target sets up what it needs in .venv; `make demo` is the place to begin.
VENV  := .venv
BIN   := $(VENV)/bin
MODEL ?= small
ifdef QUESTION
PICTURE ?= examples/media/receipt.png
endif

.PHONY: help demo test test-slow test-gpu check sanitize small-model lint types format clean

help:             ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.base  ## install, then read, find, count and watch (MODEL=... PICTURE=... QUESTION=...)
	$(BIN)/python examples/demo.py --model "$(MODEL)" $(if $(PICTURE)$(QUESTION),"$(PICTURE)" "$(or $(QUESTION),What is in the picture?)")

test: $(VENV)/.dev  ## the test suite (minutes)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

test-slow: $(VENV)/.dev  ## tests that take minutes or gigabytes each
	$(BIN)/python -m pytest -q -m slow

test-gpu: $(VENV)/.dev  ## tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

check: lint types test  ## lint, types, tests

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sanitize: $(VENV)/.dev  ## the CPU kernels with the compiler's sanitizers (minutes)
	bash scripts/sanitize_kernels.sh
	bash scripts/sanitize_kernels.sh threads

small-model: $(VENV)/.dev  ## train the small model from nothing (hours; goes on where it was stopped; PROCESSES=2 for two cores)
	bash scripts/training_packages.sh
	$(if $(PROCESSES),OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(PROCESSES) --no-python) $(BIN)/qwen3vl train small out/small-model

clean:            ## remove what the demo and the caches left
	rm -rf out .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.base: pyproject.toml scripts/setup.sh
	bash scripts/setup.sh $(VENV) base

$(VENV)/.dev: pyproject.toml scripts/setup.sh scripts/system_packages.sh
	bash scripts/setup.sh $(VENV) dev
