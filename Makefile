# Every target first sets up what it needs: a fresh machine needs only Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Debian packages that the tests use: independent HTTP tools, a compiler for fault shims, network namespaces, a database.
DEBIAN := curl nghttp2-client procps gcc libc6-dev iproute2 util-linux mount libfaketime postgresql-15
# While they are installed, their services are kept from starting: tests start servers of their own.
POLICY := /usr/sbin/policy-rc.d

.PHONY: install demo test fuzz bench lint lock format clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=""; for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then echo "installing Debian packages:$$missing"; \
	    if [ ! -e $(POLICY) ]; then printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod 755 $(POLICY); trap 'rm -f $(POLICY)' EXIT; fi; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi; \
	else echo "not root, or no apt: the tests skip the tools among '$(DEBIAN)' that are missing"; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: install
	$(BIN)/keyhaul demo deploy/berlin-bonn.toml

test: install
	PYTHONHASHSEED=0 $(BIN)/python -m pytest -n 2 --dist loadgroup

# Faults without end: the whole network under a simulated clock. Stops after SECONDS, prints seeds and findings.
SECONDS ?= 600
fuzz: install
	$(BIN)/python -m tests.simulator --seconds $(SECONDS)

bench: install
	$(BIN)/python -m bench

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q pyproject.toml requirements.in --group dev --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
