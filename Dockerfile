FROM python:3.12-slim
RUN useradd --create-home --uid 10001 psp
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY sandbox sandbox
COPY worker worker
COPY ipn ipn
COPY seeds seeds
RUN pip install --no-cache-dir --no-deps .
USER psp
ENV PYTHONUNBUFFERED=1
CMD ["python", "-m", "sandbox.serve"]
