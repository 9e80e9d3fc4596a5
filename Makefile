# Two commands do all the set-up on a bare machine with Python 3.11: `make serve` and `make test`.

VENV ?= .venv
# Where `make serve` (3000) and `make ui` (7860) answer. Other machines reach them with HOST=0.0.0.0: set API_KEYS then.
HOST ?= 127.0.0.1
PORT ?=
# The first interpreter that runs and fits; a name on PATH may still be a shim without an interpreter behind it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	if command -v $$p >/dev/null && $$p -c '$(FITS)' 2>/dev/null; then echo $$p; break; fi; done)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

BIN := $(abspath $(VENV))/bin
# Tests that need neither a server nor a browser nor long: they run on all cores at once, the others two at a time.
FAST := not slow and not pipeline and not serve and not browser
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PATH := $(BIN):$(PATH)
# Nothing that runs here calls home.
export BENTOML_DO_NOT_TRACK := True
export DVC_NO_ANALYTICS := 1
export GRADIO_ANALYTICS_ENABLED := False
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve ui test check lint coverage calibrate soak repro record release promote rollback image image-test format clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

free_port = $(BIN)/python -c 'import socket, sys; socket.create_server((sys.argv[1], int(sys.argv[2])))' $(HOST) $(PORT) 2>/dev/null \
	|| { echo "port $(PORT) is taken, or $(HOST) is no address of this machine: $(1)" >&2; exit 1; }

serve: PORT := $(or $(PORT),3000)
serve: $(VENV)/.serve ## install what serving needs, answer on http://localhost:3000 (PORT=3001 make serve: elsewhere)
	@$(call free_port,PORT=3001 make serve)
	@echo
	@echo "  in some seconds   http://localhost:$(PORT)/docs"
	@echo "  then try          curl -F file=@some.jpg http://localhost:$(PORT)/predict"
	@echo "  the end           Ctrl-C"
	@echo
	@# A home of its own: BentoML empties the folder of metrics and rate limits at every start, another service's too.
	@mkdir -p build/bentoml-$(PORT)
	@BENTOML_HOME=$(CURDIR)/build/bentoml-$(PORT) OMP_WAIT_POLICY=PASSIVE exec $(BIN)/bentoml serve --host $(HOST) --port $(PORT)

ui: PORT := $(or $(PORT),7860)
ui: $(VENV)/.ui ## the moderators' page on http://localhost:7860 (API_URL=… for a service elsewhere)
	@$(call free_port,PORT=7861 make ui)
	@exec $(BIN)/python -m ui --host $(HOST) --port $(PORT)

test: $(VENV)/.dev ## run every test, the pipeline and the real service too
	$(BIN)/pytest -n auto --dist loadfile -m "$(FAST)"
	$(BIN)/pytest -n 2 --dist loadfile -m "not ($(FAST))"

check: lint ## lint, and the fast tests: under 3 minutes
	$(BIN)/pytest -n auto --dist loadfile -m "$(FAST)"

lint: $(VENV)/.dev ## style, format, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir build/.cache/import-linter

coverage: $(VENV)/.dev ## lines and branches that the tests reach, in the processes that they start, too (a third slower)
	@mkdir -p build/.cache/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not pipeline and not browser and not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

calibrate: $(VENV)/.dev ## thresholds of your own shop, from PHOTOS=folder of its real photos (docs/PROMISES.md)
	@test -n "$(PHOTOS)" || { echo "name the folder of your real photos: make calibrate PHOTOS=photos/real" >&2; exit 1; }
	$(BIN)/python -m tools.calibrate "$(PHOTOS)" --model $(or $(MODEL),photos) $(if $(OUT),--out "$(OUT)")

soak: $(VENV)/.dev ## 10,000 good, bad, huge and slow requests: nothing lost, no worker restarted, no memory leak
	$(BIN)/python bench/soak.py

repro: $(VENV)/.dev ## rebuild whatever is out of date in the pipeline, of each model (dvc repro)
	$(BIN)/dvc repro

record: $(VENV)/.dev ## the long recipe, for a machine with a GPU: an experiment named record (docs/ACCURACY.md)
	$(BIN)/dvc exp run --name record -S models.cifake.train.epochs=150 \
		-S 'models.cifake.train.backbone_args.layers=[2,2,2,1]' evaluate@cifake

# Which model: MODEL=… names one; without it the only one.
model = $(if $(MODEL),--model $(MODEL))

release: $(VENV)/.dev ## every step of a release, MODEL=… of which (docs/RELEASES.md)
	$(BIN)/python -m tools.make_release $(model)

promote: $(VENV)/.dev ## the release in models/ (or VERSION=…) becomes champion, in deploy/models (MODEL=…, TO=… elsewhere)
	$(BIN)/python -m tools.registry promote $(model) $(if $(VERSION),--version $(VERSION)) \
		$(if $(FROM),--from $(FROM)) --to $(or $(TO),deploy)

rollback: $(VENV)/.dev ## the champion before this one becomes champion again (MODEL=…, docs/RELEASES.md)
	$(BIN)/python -m tools.registry rollback $(model) --to $(or $(TO),deploy)

image: $(VENV)/.serve ## build the container images (api, full, ui) with podman
	ops/image.sh api full ui

image-test: $(VENV)/.serve ## build them, run them as strictly as can be, use them; size and start-up time come last
	ops/image_test.sh

format: $(VENV)/.dev ## write the code the way ruff wants it
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove everything derived; never photos/, data/ or models/
	rm -rf build .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" && command -v "$(PYTHON)" >/dev/null && "$(PYTHON)" -c '$(FITS)' 2>/dev/null \
		|| { echo "This project needs Python 3.11 or 3.12, found: $(or $(PYTHON),none). Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3.11-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp is younger than what it was installed from, so that a second call installs nothing.
$(VENV)/.serve: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what serving and the drift monitor need into $(VENV): one or two minutes, 1.2 GB"
	@$(INSTALL) -e '.[monitor]' -c constraints.txt
	@touch $@

$(VENV)/.ui: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the page needs into $(VENV): a minute, 600 MB"
	@$(INSTALL) -e '.[ui]' -c constraints.txt
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what serving, training and the tests need into $(VENV): some minutes, 2 GB or more"
	@$(INSTALL) -e '.[monitor,train,bulk,client,ui,dev]' -c constraints.txt
	@touch $@ $(VENV)/.serve $(VENV)/.ui
