"""The .http file of the guide has every operation of the API, as a request that the sandbox understands."""

import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.harness.world import Stack, World

ROOT = Path(__file__).parent.parent
NOT_UNDERSTOOD = {400, 405, 406, 411, 415, 422, 500, 501}
STREAMS = {"stream"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the file as the build of the guide writes it."""
    file = tmp_path_factory.mktemp("requests") / "psp-sandbox.http"
    subprocess.run([sys.executable, ROOT / "openapi/generate_http.py", file], check=True)
    return file.read_text()


def requests_of(text: str, values: dict[str, str]) -> dict[str, tuple[str, str, dict[str, str], str]]:
    """Return the requests as an editor sends them, by name: method, URL, headers and body."""
    variables = dict(re.findall(r"(?m)^@(\w+) = ?(.*)$", text)) | values
    found = {}
    for block in text.split("\n### ")[1:]:
        filled = re.sub(r"\{\{(\$?\w+)\}\}", lambda name: variables.get(name[1]) or str(uuid4()), block)
        head, _, body = filled.partition("\n\n")
        _, name, line, *headers = head.splitlines()
        method, url = line.split(" ", 1)
        found[name.removeprefix("# @name ")] = (method, url, dict(one.split(": ", 1) for one in headers), body)
    return found


def test_every_operation_of_the_document_is_a_request(text: str) -> None:
    document = json.loads((ROOT / "openapi/openapi.json").read_text())
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert sorted(re.findall(r"(?m)^# @name (\w+)$", text)) == sorted(operations)


def test_the_sandbox_understands_each_request(text: str, stack: Stack, world: World) -> None:
    keys = {"url": stack.api_url, "api_key": world.api_key, "admin_key": stack.admin_key, "merchant_id": str(uuid4())}
    sent = requests_of(text, keys)
    assert len(sent) > 90
    answers = {}
    for name, (method, url, headers, body) in sent.items():
        if name in STREAMS:
            continue
        if "multipart" in headers.get("Content-Type", ""):
            body = body.replace("\n", "\r\n")  # as editors send it, and as multipart needs it
        answers[name] = httpx.request(method, url, headers=headers, content=body.encode() or None, timeout=30, trust_env=False)
    assert {name: one.text for name, one in answers.items() if one.status_code in NOT_UNDERSTOOD} == {}
    assert answers["create_payout"].status_code == 201
