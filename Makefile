# A fresh machine needs Python >= 3.11 and make; everything else comes into .venv. `make help` lists what there is.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two workers at least, because tests wait more than they compute; eight at most, because they share a disk.
TEST_WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); \
	echo $$(( n < 2 ? 2 : n > 8 ? 8 : n )))
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo kafka test check format bench schemas usage docs screenshots wheel clean

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

demo: $(INSTALLED)  ## run business processes, kill the engine under them, and see that nothing was lost
	@$(BIN)/orchestrator demo

kafka: $(INSTALLED)  ## run a Kafka broker on 127.0.0.1:9092 until Ctrl-C; KAFKA_PORT=19092 takes another port
	@$(BIN)/python -m tests.kafka.broker

test: $(INSTALLED)  ## run all tests; TESTS="tests/unit -k retry" runs some
	@$(BIN)/python -m pytest $(TESTS) -n $(TEST_WORKERS) --dist loadgroup --max-worker-restart 1

check: $(INSTALLED)  ## format, lint, types, layers and containers: everything that can be said without running
	@$(BIN)/ruff format --check --quiet . || { echo 'not formatted; run: make format'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/hadolint Dockerfile

format: $(INSTALLED)  ## format the code, and fix what can be fixed by machine
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

bench: $(INSTALLED)  ## measure throughput, latency, fan-out, memory; the same and restarts on Kafka
	@$(BIN)/python -m bench
	@$(BIN)/python -m bench kafka

schemas: $(INSTALLED)  ## write schemas/*.avsc anew from the structs
	@$(BIN)/python -m orchestrator.codec.schema schemas/

usage: $(INSTALLED)  ## write the help of the commands anew, from what they are
	@$(BIN)/python -m orchestrator.cli.help

docs: $(INSTALLED)  ## build the documentation as a site into docs/_build/html
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html

screenshots: $(INSTALLED)  ## take the pictures in docs/images anew; needs Chromium
	@$(BIN)/python -m tests.browser.screenshots

wheel: $(INSTALLED)  ## build the wheel into dist/
	@$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what was built; the environment too
	rm -rf $(VENV) dist build docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The environment follows pyproject.toml. An interrupted installation leaves no stamp and is done again.
$(INSTALLED): pyproject.toml
	@$(if $(PYTHON),,echo 'Python >= 3.11 is needed, and found is: '"$$(python3 --version 2>&1 || true)"'. \
	Install one, or name it: make PYTHON=/path/to/python3'; exit 1)
	@echo 'installing into $(VENV) (a minute, once)' >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo 'no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv'; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@
