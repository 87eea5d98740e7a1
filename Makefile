# Needs Python 3.11 or later with pip, git and make. Everything is installed into .venv.
# Another Python: make test PYTHON=python3.13 (delete .venv first). More arguments: make test ARGS="-k P4".

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip --disable-pip-version-check --no-input install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-more lint format types news-check docs-check docs settings-doc bench soak nightly lock lock-check advisories clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

demo: $(VENV)/.examples  ## Run 20 concurrent calls through the call monitor, with a live view
	$(RUN) -m examples.call_monitor $(ARGS)

test: $(VENV)/.dev  ## Run the tests
	$(RUN) scripts/run_tests.py $(ARGS)

MORE := tests/entrypoints/livekit_matrix.py tests/examples/livekit_examples.py tests/hostile_runs.py tests/rooms/livekit_styles.py

test-more: $(VENV)/.dev  ## Run long tests that "make test" leaves out: spoken calls, attacks, variants of LiveKit apps
	$(RUN) scripts/run_tests.py $(MORE) $(ARGS)

lint: $(VENV)/.dev  ## Check style and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/.dev  ## Repair style and format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: $(VENV)/.dev  ## Check types
	$(RUN) -m mypy --strict src

news-check: $(VENV)/.dev  ## Check the news fragments
	$(RUN) scripts/check_news.py

docs-check: $(VENV)/.dev  ## Check commands and links in README and docs
	$(RUN) scripts/check_docs.py

docs: $(VENV)/.dev  ## Build the documentation's pages into build/site
	$(RUN) -m mkdocs build --strict --quiet

settings-doc: $(VENV)/.dev  ## Write docs/settings.md from the types that declare the settings
	$(RUN) scripts/settings_doc.py

bench: $(VENV)/.dev  ## Measure Greenroom beside its peers
	$(RUN) -m benchmarks $(ARGS)

soak: $(VENV)/.dev  ## Run 10,000 jobs under random faults and account for each
	$(RUN) -m benchmarks.soak $(ARGS)

nightly: $(VENV)/.dev  ## Run the long checks: hostile traffic, soak, pre-releases (ARGS="--minutes 5", --list)
	$(RUN) -m benchmarks.nightly $(ARGS)

lock: $(VENV)/.dev  ## Write the lock files anew from pyproject.toml (ARGS=--upgrade: with the newest versions)
	$(RUN) scripts/make_lock.py $(ARGS)

lock-check: $(VENV)/.dev  ## Check that the lock files fit pyproject.toml
	$(RUN) scripts/check_lock.py

advisories: $(VENV)/.dev  ## Compare the locked versions with known advisories
	$(RUN) scripts/check_advisories.py $(ARGS)

clean:  ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

# One stamp for each set of packages: repeated when its lock file or pyproject.toml changes. Each package must have a
# hash in the lock file. Greenroom itself is built with what the lock file brings, so that nothing unlocked is fetched.
$(VENV)/.examples $(VENV)/.dev: $(VENV)/.%: requirements/%.lock pyproject.toml $(VENV)/.base
	@echo "Installing requirements/$*.lock into $(VENV) ..."
	@$(INSTALL) --require-hashes --requirement requirements/$*.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.base:
	@command -v '$(PYTHON)' >/dev/null || \
		{ echo "error: $(PYTHON) was not found; name a Python of 3.11 or later: make PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Greenroom needs Python 3.11 or later; $(PYTHON) is" \
		"$$('$(PYTHON)' --version 2>&1). Name another: make PYTHON=python3.13" >&2; exit 1; }
	@'$(PYTHON)' scripts/make_venv.py '$(VENV)'
	@touch $@
