# Every target does its own set-up and can be run again.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# The distribution's before any other on the PATH: one that was built without optimizations takes 1.5 times as long.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) python3.11)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock 2>/dev/null | sha256sum | cut -c1-12)
WHEELS := build/wheels/.complete-$(shell cat requirements-demo.lock requirements-group-service.lock 2>/dev/null | sha256sum | cut -c1-12)
ARGS ?= status
# Without compiled files every worker and every program that a test starts compiles all anew.
unexport PYTHONDONTWRITEBYTECODE
# ENGINE=trixie, ENGINE=sid: that suite of Debian's Docker engine in place of the installed one (scripts/engine.sh).
ifdef ENGINE
export ENGINE
export PATH := $(or $(OFA_STATE_DIR),/var/lib/openfactory-dev)/engines/$(ENGINE)/engine-bin:$(PATH)
endif
REGISTRY ?= openfactory
# What decides without I/O; in these patterns * also stands for a /.
PURE := reconciler/domain/*,reconciler/planning/*,reconciler/leadership/lease.py,reconciler/control/backoff.py
# Unit tests of what is no part of the operator.
UNMEASURED := tests/unit/demo tests/unit/scripts tests/unit/routing_layer tests/unit/state_api
# Strict: a link or an anchor that leads nowhere and a page outside the menu are errors.
SITE := $(BIN)/sphinx-build -q -W --keep-going -c docs -d build/site-cache . build/site
IMAGES := scripts/images.sh >build/images.env.new && mv build/images.env.new build/images.env

.NOTPARALLEL:
.PHONY: help demo demo-down test test-fast test-kafka test-engine coverage mutants lint docs docs-serve audit sleep soak bench cli release release-dry-run images engine kafka venv wheels lock clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: engine ## bring up everything on a one-node Swarm and show five live events
	@$(IMAGES)
	@$(PYTHON) scripts/demo.py up

demo-down: ## remove everything that make demo made
	@$(PYTHON) scripts/demo.py down

cli: ## run the operator's command line in the demo, e.g. make cli ARGS="plan"
	@$(PYTHON) scripts/demo.py cli -- $(ARGS)

test: lint test-fast test-kafka test-engine ## lint, then all tests, the fast ones first

test-fast: coverage ## the tests that need neither an engine nor a Kafka, with coverage
	$(BIN)/pytest -q -n 4 --dist worksteal -m "not engine and not kafka" $(UNMEASURED) $(filter-out tests/unit/ tests/__pycache__/,$(wildcard tests/*/))

# A worker has a broker of its own, and its tests may stop it.
test-kafka: venv kafka ## the tests with a real Kafka, without an engine
	$(BIN)/pytest -q -n 2 --dist loadfile -m "kafka and not engine" tests/kafka tests/integration

# The longest files first: a file is one worker's.
test-engine: venv engine ## the tests on a real Swarm; ENGINE=trixie or sid: with that suite's Docker engine
	@$(IMAGES)
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m engine tests/managers tests/e2e tests/docker_platform tests/swarm tests/integration

coverage: venv ## branch coverage of the operator by its unit tests, and its floors
	$(BIN)/pytest -q -n 4 --dist worksteal --cov --cov-report= tests/unit $(addprefix --ignore=,$(UNMEASURED))
	$(BIN)/coverage report --skip-covered --fail-under 98 --include "$(PURE)"

mutants: venv ## change the deciding parts in small ways, and list the changes that no test notices
	rm -rf mutants
	$(BIN)/mutmut run
	$(BIN)/mutmut results

# mypy takes as long as all others together: it has one core, they the other.
lint: venv ## ruff, mypy --strict, import contracts, sizes, generated pages, links
	{ $(BIN)/mypy && $(BIN)/mypy scripts docs/conf.py; } & types=$$!; \
	  { $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache && \
	    $(BIN)/python scripts/sizes.py && PYTHONPATH=. $(BIN)/python scripts/docs_pages.py --check && $(SITE); } || others=$$?; \
	  wait $$types && exit $${others:-0}

docs: venv ## renew the generated pages, and build the documentation site in build/site
	PYTHONPATH=. $(BIN)/python scripts/docs_pages.py
	$(SITE)

docs-serve: docs ## show the documentation site on http://localhost:8000
	$(BIN)/python -m http.server --directory build/site 8000

audit: ## look for known vulnerabilities in the locked libraries (needs the index's database)
	@test -x build/audit/bin/pip-audit || { scripts/venv.sh $(PYTHON) build/audit && build/audit/bin/pip install -q --disable-pip-version-check pip-audit==2.10.1; }
	@$(PYTHON) scripts/audit.py build/audit/bin/pip-audit

sleep: venv ## 10,000 schedules of the protocol by which groups fall asleep and wake (about seven minutes)
	SLEEP_SCHEDULES=10000 $(BIN)/python -m pytest -q --timeout 0 tests/unit/planning/test_sleep.py

soak: venv kafka ## random faults from a seed for long, e.g. make soak SOAK="--cycles 5000 --seed 7"; 1,000 reconnects
	$(BIN)/python -m tests.soak $(SOAK)
	$(BIN)/python -m tests.kafka.reconnects

bench: venv kafka ## measurements, as ratios within one run (results in bench/results)
	@for script in $(wildcard bench/*.py bench/*/run.py); do $(BIN)/python $$script; done

release: venv engine ## check, tag and build a release: make release VERSION=1.2.3 [REGISTRY=...] [PUSH=1]
	@PYTHONPATH=. $(BIN)/python scripts/release.py "$(VERSION)" --registry "$(REGISTRY)" $(if $(PUSH),--push)

release-dry-run: lint engine ## the same without tag and pushes, for the version that the code has
	@PYTHONPATH=. $(BIN)/python scripts/release.py --dry-run

images: engine ## build the images that are not there yet
	@scripts/images.sh

engine: ## a Docker engine in Swarm mode, installed and started if none answers
	@mkdir -p build
	@scripts/engine.sh

kafka: ## the broker of the tests in build/kafka, and a Java to run it
	@scripts/kafka.sh

venv: $(VENV)/.project ## the development environment in .venv, with the project in it (editable)
$(STAMP):
	@scripts/venv.sh $(PYTHON) $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.project: $(STAMP) pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $@

wheels: $(WHEELS) ## the images' libraries, with hashes, into build/wheels
$(WHEELS):
	@rm -rf build/wheels && mkdir -p build/wheels
	@test -x build/pip/bin/pip || scripts/venv.sh $(PYTHON) build/pip
	@echo "  fetching the libraries of the images" >&2
	@for part in demo group-service; do \
	  build/pip/bin/pip wheel -q --disable-pip-version-check --require-hashes -r requirements-$$part.lock -w build/wheels; done
	@touch $@

lock: ## renew the lock files from pyproject.toml
	scripts/venv.sh $(PYTHON) build/lock && build/lock/bin/pip install -q uv
	for part in "requirements.lock --extra dev --extra docs --extra demo --extra group-service" "requirements-runtime.lock" \
	  "requirements-demo.lock --extra demo" "requirements-group-service.lock --extra group-service"; do \
	  set -- $$part; out=$$1; shift; build/lock/bin/uv pip compile pyproject.toml "$$@" --upgrade -q --universal \
	    --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -o $$out; done

clean: ## remove what the targets built here (not the engine's images)
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis mutants .coverage
