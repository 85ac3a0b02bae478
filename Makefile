# `make help` lists the targets. Everything runs in .venv with the versions of requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
INSTALLED := $(VENV)/.installed

include pipeline.mk

.PHONY: test lint advisories attack lock clean

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep -E '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

test: $(INSTALLED) ## Run every test, three files at a time
	python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED) ## ruff, mypy on the typed modules, bandit
	ruff check src tests benchmarks docs
	ruff format --check src tests benchmarks docs
	mypy
	bandit --quiet --recursive --configfile pyproject.toml src

advisories: $(INSTALLED) ## Check requirements.lock for known vulnerabilities; needs the network
	pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

attack: $(INSTALLED) ## Run the tests that mutate files and requests, with 1,500 mutations each
	HYPOTHESIS_PROFILE=attack python -m pytest -n 2 tests/attacks

lock: $(INSTALLED) ## Resolve requirements.lock again from pyproject.toml
	uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --group dev pyproject.toml -o requirements.lock
	grep -E '^uv==' requirements.lock

clean: ## Remove the environment; data, models and results stay
	rm -rf $(VENV)
