# make install, make up, make test. Everything lives in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
# The tests start a hundred processes; without cached bytecode, each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
# One lock file for Python 3.11 and newer, Linux and macOS, x86-64 and arm64. --no-config: ignore settings of this machine.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-config --no-header --quiet

# A virtual environment contains absolute paths and one version of Python. It does not work after the folder was moved or copied,
# or after its Python was removed: then ignore the stamps below and create it again.
FITS := $(shell grep -qsF "$$(pwd -P)/$(VENV)/bin/" $(VENV)/bin/psp && $(VENV)/bin/python -c 'import msgspec' 2>/dev/null && echo yes)

# The build requirements; no tool writes a lock file for these.
define BUILD_REQUIRES
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
endef
export BUILD_REQUIRES

.PHONY: install dev up docs test test-all containers release publish lint clean lock
.DEFAULT_GOAL := install

install: $(VENV)/.installed

dev: $(VENV)/.client

ifneq ($(FITS),yes)
.PHONY: $(VENV)/bin/pip $(VENV)/.installed $(VENV)/.installed-dev $(VENV)/.client
endif

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "This Python has no venv module with pip (Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

# Each stamp is newer than its prerequisites when there is nothing to do.
# The files list every package, so pip resolves nothing. It would take a newer release for a requirement with extras
# (pydantic[email]), for which the file has no hash.
$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --no-deps --require-hashes -r requirements.txt
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) install --no-deps --require-hashes -r requirements-dev.txt
	@touch $@

# The installation has written the generated files. Write them again when the document or a generator changes.
$(VENV)/.client: $(wildcard openapi/*.json openapi/*.py) $(VENV)/.installed-dev
	$(VENV)/bin/python openapi/generate_client.py
	@touch $@

# The images and compose files in a container engine. Testcontainers' own clean-up needs an image from a registry; `with` cleans up too.
containers: dev
	PSP_CONTAINERS=1 TESTCONTAINERS_RYUK_DISABLED=true $(VENV)/bin/pytest -n 0 tests/test_containers_run.py

up: install
	@PSP_UP_BY_MAKE=1 exec $(VENV)/bin/psp up $(ARGS)

lint: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The guide, which a running sandbox serves at /docs/guide/. `make install` builds it too.
docs: dev
	$(VENV)/bin/python build_backend/guide.py

# While you work: all tests but those with the marker `slow`.
test: lint docs
	$(VENV)/bin/pytest -n auto -m "not slow"

# What CI runs: every test.
test-all: lint docs
	$(VENV)/bin/pytest -n auto

# Write the requirements files from pyproject.toml, with uv in a temporary environment.
lock:
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT \
		&& $(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet uv && PATH="$$tools/bin:$$PATH" \
		&& $(COMPILE) --upgrade --extra server -o requirements.txt pyproject.toml \
		&& $(COMPILE) --upgrade --extra server --extra dev --extra otel --extra mcp --extra freeze --extra testcontainers -c requirements.txt -o requirements-dev.txt pyproject.toml \
		&& $(PYTHON) -c "$$BUILD_REQUIRES" | $(COMPILE) --no-annotate -o requirements-build.txt -

# Build what would be published into dist/, check it and use it; docs/release.md. The tools are in a temporary environment.
release:
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" \
		&& "$$tools/bin/pip" install --quiet --no-deps --require-hashes -r requirements-build.txt \
		&& "$$tools/bin/pip" install --quiet build twine cyclonedx-bom check-wheel-contents \
		&& "$$tools/bin/python" build_backend/release.py

# Publish what `make release` has built. REGISTRY is where images go, such as ghcr.io/your-org. TWINE_, npm's and Docker's settings apply.
publish:
	@test -n "$(REGISTRY)" || { echo "Name where images go: make publish REGISTRY=ghcr.io/your-org" >&2; exit 1; }
	cd dist && sha256sum --check --quiet SHA256SUMS
	@grep -q "$$(git rev-parse HEAD)" dist/provenance.json || { echo "dist/ is of another commit: make release" >&2; exit 1; }
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet twine \
		&& "$$tools/bin/twine" upload dist/*.whl dist/*.tar.gz
	npm publish dist/*.tgz
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) && for tag in "$$version" "$$version-all-in-one"; do \
		docker tag "psp-sandbox:$$tag" "$(REGISTRY)/psp-sandbox:$$tag" && docker push "$(REGISTRY)/psp-sandbox:$$tag" || exit 1; done \
		&& git tag "v$$version" && cp dist/CHANGELOG.md .

clean:
	cd psp_sandbox/client && rm -rf _generated models inputs.py literals.py problems.py
	rm -rf $(VENV) sandbox/cli/operations.json sandbox/server/docs/guide .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis schemathesis-report build *.egg-info
	find psp_sandbox sandbox worker ipn seeds tests -name __pycache__ -type d -prune -exec rm -rf {} +
