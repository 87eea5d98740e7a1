# Needs Python 3.11 or later with pip, git and make. Everything is installed into .venv.
# Another Python: make test PYTHON=python3.13 (delete .venv first). More arguments: make test ARGS="-k P4".

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip --disable-pip-version-check --no-input install --quiet

.DEFAULT_GOAL := help
.PHONY: help hooks demo test test-more simulate lint format types news-check docs-check commits-check docs settings-doc \
	api-doc tables-doc bench soak nightly lock lock-check advisories release-check clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 15

hooks: $(VENV)/.dev  ## Have git run the quick checks before each commit
	$(RUN) -m pre_commit install

demo: $(VENV)/.examples  ## Run 20 concurrent calls through the call monitor, with a live view
	$(RUN) -m examples.call_monitor $(ARGS)

test: $(VENV)/.dev  ## Run the tests
	$(RUN) scripts/run_tests.py $(ARGS)

test-more: $(VENV)/.dev  ## Run long tests that "make test" leaves out: spoken calls, attacks, variants of LiveKit apps
	$(RUN) scripts/run_tests.py --more $(ARGS)

simulate: $(VENV)/.dev  ## Live simulated histories of the pool's core (ARGS="--minutes 10 --seed 7")
	$(RUN) -m tests.simulation.run $(ARGS)

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
	$(RUN) scripts/pool_tables.py --check
	$(RUN) scripts/api_doc.py --check

commits-check: $(VENV)/.dev  ## Check the messages of the last commits (ARGS="--last 5")
	$(RUN) scripts/check_commits.py $(ARGS)

docs: $(VENV)/.dev  ## Build the documentation's pages into build/site
	$(RUN) -m mkdocs build --strict --quiet

settings-doc: $(VENV)/.dev  ## Write docs/settings.md from the types that declare the settings
	$(RUN) scripts/settings_doc.py

api-doc: $(VENV)/.dev  ## Write docs/python-api.md from the docstrings of the public classes
	$(RUN) scripts/api_doc.py

tables-doc: $(VENV)/.dev  ## Draw the tables of the pool's core into docs/architecture.md
	$(RUN) scripts/pool_tables.py

bench: $(VENV)/.dev  ## Measure Greenroom beside its peers
	$(RUN) -m benchmarks $(ARGS)

soak: $(VENV)/.dev  ## Run 10,000 jobs under random faults and account for each
	$(RUN) -m benchmarks.soak $(ARGS)

nightly: $(VENV)/.dev  ## Run the long checks: hostile traffic, soaks, pre-releases (ARGS="--minutes 5", --list)
	$(RUN) -m benchmarks.nightly $(ARGS)

lock: $(VENV)/.dev  ## Write the lock files anew from pyproject.toml (ARGS=--upgrade: with the newest versions)
	$(RUN) scripts/make_lock.py $(ARGS)

lock-check: $(VENV)/.dev  ## Check that the lock files fit pyproject.toml
	$(RUN) scripts/check_lock.py

advisories: $(VENV)/.dev  ## Compare the locked versions with known advisories
	$(RUN) scripts/check_advisories.py $(ARGS)

release-check: $(VENV)/.dev  ## Build the packages, and try the wheel on each Python found (ARGS=--all: on each supported)
	$(RUN) scripts/release_check.py $(ARGS)

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
