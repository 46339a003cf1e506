# `make demo` and `make test` do everything from a fresh checkout. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := build,rtx,bench,dev

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench lock system proto train image clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY) ## build the reference bundle, serve it, stream six cameras, leave pictures in out/demo
	$(BIN)/python -m demo

test: system check ## set up, then run every check and every test
	@echo "── tests ──────────────────────────────────────────────"
	$(BIN)/pytest --durations=10

check: $(READY) ## format, lint, strict types, proto lint, generated code
	@echo "── format ─────────────────────────────────────────────"
	$(BIN)/ruff format --check .
	@echo "── lint ───────────────────────────────────────────────"
	$(BIN)/ruff check .
	@echo "── types ──────────────────────────────────────────────"
	$(BIN)/mypy
	@echo "── protos ─────────────────────────────────────────────"
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb
	$(BIN)/python protos/generate.py --check

format: $(READY) ## rewrite the sources the way `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure: fusion, precision, renderer, stream (ratios within one run)
	$(BIN)/python -m benchmarks

train: $(READY) ## train the reference model again (up to 40 minutes on two cores)
	$(BIN)/python -m surround train

image: $(READY) system ## build the CPU image without Docker, serve the demo's bundle in it, stream frames to it (root)
	$(BIN)/python docker/try_image.py out/demo/bundle

proto: $(READY) ## write the Python code of the .proto files again
	$(BIN)/python protos/generate.py

lock: $(READY) ## write constraints.txt again from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	@head -2 constraints.txt > out.lock
	echo "torch==2.13.0" | $(BIN)/uv pip compile pyproject.toml $(foreach extra,build rtx bench dev,--extra $(extra)) \
		--universal --python-version 3.10 --no-header --no-annotate --quiet --constraint - \
		| grep -vE '^(nvidia-|cuda-|triton)' >> out.lock
	@mv out.lock constraints.txt

system: ## Prometheus, Chromium, buildah: installed where this is Debian and root, else named
	@sh docker/system-packages.sh

clean: ## remove what the other targets made
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@echo "── setting up $(VENV) ($$($(PYTHON) --version)) ─────────────────────"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
