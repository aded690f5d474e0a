# make install, make up, make test. Everything lives in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
# The tests start a hundred processes, each of which would otherwise compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
# One file for every Python from 3.11.0 on, Linux and macOS, x86-64 and arm64; settings of the machine must not reach it.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-config --no-header --quiet

# A virtual environment holds absolute paths and one version of Python. In a folder that was moved or copied, or whose
# Python has gone, it does not fit: the stamps below then count for nothing, and it is made anew.
FITS := $(shell grep -qsF "$$(pwd -P)/$(VENV)/bin/" $(VENV)/bin/psp && $(VENV)/bin/python -c 'import msgspec' 2>/dev/null && echo yes)

# What builds the package, of which no tool writes a lock.
define BUILD_REQUIRES
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
endef
export BUILD_REQUIRES

.PHONY: install dev up test nightly lint clean lock
.DEFAULT_GOAL := install

install: $(VENV)/.installed

dev: $(VENV)/.installed-dev

ifneq ($(FITS),yes)
.PHONY: $(VENV)/bin/pip $(VENV)/.installed $(VENV)/.installed-dev
endif

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "This Python has no venv module with pip (Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

# A stamp newer than what it was made from means that there is nothing to do.
$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --require-hashes -r requirements.txt
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

up: install
	@PSP_UP_BY_MAKE=1 exec $(VENV)/bin/psp up $(ARGS)

lint: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(VENV)/bin/pytest -n auto

# What takes long: a real minute, whose guarantee `make test` holds in virtual time, and the contract covered in every way.
nightly: dev
	$(VENV)/bin/pytest -m nightly
	CONTRACT_COVERAGE=all $(VENV)/bin/python .ci/contract

# Writes the requirements files anew from pyproject.toml, with the tool in an environment of its own.
lock:
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT \
		&& $(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet uv && PATH="$$tools/bin:$$PATH" \
		&& $(COMPILE) --upgrade -o requirements.txt pyproject.toml \
		&& $(COMPILE) --upgrade --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml \
		&& $(PYTHON) -c "$$BUILD_REQUIRES" | $(COMPILE) --no-annotate -o requirements-build.txt -

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis schemathesis-report *.egg-info
	find sandbox worker ipn seeds tests -name __pycache__ -type d -prune -exec rm -rf {} +
