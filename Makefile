# The pipeline's targets; `make help` lists them.
PORT ?= 5000
CONTROLS := .dermaflux/controls

.DEFAULT_GOAL := help
.PHONY: help demo dermae controls data ui

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

data: ## Render the phantom corpus when data/ is absent, and give it to DVC
	test -d data || dermaflux phantom data
	dvc commit --quiet data.dvc < /dev/null
	dvc status data.dvc

demo: data ## Run the whole pipeline on the phantom corpus and print what came out
	dvc repro
	dermaflux register
	dermaflux summary

dermae: data ## DerMAE on the corpus of make demo: latent diffusion, masked autoencoder, a student
	dvc exp run --name dermae-$$(date +%Y%m%d-%H%M%S) -S generator=latent_ddpm -S finetune.latent_ddpm.steps=250 \
	  -S synthesize.images=260 -S n_real=240 -S ratio=1 -S train.image_size=64 -S train.recipe=mae \
	  -S pretrain.epochs=20 -S train.epochs=6 \
	  -S 'train.architectures=[vit_mae]' -S 'train.seeds=[0,1]' \
	  -S 'train.arms=[real,mixture,scratch,random_features]' -S 'train.curve=[]' -S train.layer_decay=0.75 \
	  -S 'distill.students=[resnext]' -S distill.teacher=vit_mae \
	  -S promote.architecture=resnext -S promote.model_name=lesion-student
	dermaflux summary

controls: ## Does the pipeline see a perfect generator, and one with shuffled labels?
	test -d $(CONTROLS)/data/phantom || dermaflux phantom --pool 3000 --seed 1 $(CONTROLS)/data/phantom
	test -d $(CONTROLS)/pool || dermaflux phantom --pool 640 --seed 2 $(CONTROLS)/pool
	test -d $(CONTROLS)/shuffled || dermaflux phantom --pool 640 --seed 2 --shuffled $(CONTROLS)/shuffled
	for pool in pool shuffled; do \
	  dvc exp run --name controls-$$pool-$$(date +%Y%m%d-%H%M%S) -S data=$(CONTROLS)/data \
	  -S generator=released -S synthesize.released.folder=$(CONTROLS)/$$pool -S synthesize.images=640 \
	  -S '++ingest.own=[{name: phantom, folder: phantom}]' -S ingest.test_fraction=0.35 \
	  -S ingest.validation_fraction=0.08 -S caption.captioner=label \
	  -S 'validate.caption_characters=[20,1600]' -S n_real=80 -S ratio=8 \
	  -S 'train.architectures=[resnext]' -S 'train.arms=[real,mixture,more_real]' -S 'train.curve=[3,18]' \
	  -S train.image_size=32 -S train.epochs=10 -S promote.architecture=resnext -S promote.model_name=controls \
	  && dermaflux summary || exit 1; done

ui: ## MLflow UI of the store in use, on 127.0.0.1 (PORT=5000)
	dermaflux ui $(PORT)

# --- Only in a clone: a project of `dermaflux init` has what is above this line ---
# Everything runs in .venv with the versions of requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
INSTALLED := $(VENV)/.installed

data controls ui: $(INSTALLED)

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
