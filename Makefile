# make install, make up, make test. Everything lives in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
COMPILE := --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --strip-extras --no-header --quiet

.PHONY: install dev up test lint clean lock
.DEFAULT_GOAL := install

install: $(VENV)/.installed

dev: $(VENV)/.installed-dev

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "This Python has no venv module with pip (Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp newer than what it was made from means that there is nothing to do.
$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --require-hashes -r requirements.txt
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

up: install
	@exec $(VENV)/bin/psp up $(ARGS)

lint: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(VENV)/bin/pytest -n auto
	@if [ -x .ci/contract ]; then PATH="$(CURDIR)/$(VENV)/bin:$$PATH" .ci/contract; fi

# Writes both requirements files anew from pyproject.toml, with the tool in an environment of its own.
lock: $(VENV)/bin/pip
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT \
		&& $(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet pip-tools \
		&& "$$tools/bin/pip-compile" $(COMPILE) --upgrade -o requirements.txt pyproject.toml \
		&& "$$tools/bin/pip-compile" $(COMPILE) --upgrade --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis schemathesis-report *.egg-info
	find sandbox worker ipn seeds tests -name __pycache__ -type d -prune -exec rm -rf {} +
