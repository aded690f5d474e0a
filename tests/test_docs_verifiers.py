"""The verifiers in the guide accept and refuse what the published test vectors say, in each language that is installed."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.harness.code_blocks import ROOT, Block, blocks_of

PAGE = ROOT / "docs" / "verify.md"
DRIVERS = Path(__file__).parent / "verifiers"
VECTORS = ROOT / "openapi" / "webhooks"


@dataclass(frozen=True)
class Language:
    """How to compile and run a verifier: the file that the guide's block becomes, its driver, and the commands."""

    file: str
    driver: str
    commands: tuple[str, ...]


LANGUAGES = {
    "python": Language("verify.py", "driver.py", (f"{sys.executable} driver.py",)),
    "javascript": Language("verify.mjs", "driver.mjs", ("node driver.mjs",)),
    "java": Language("Webhooks.java", "Driver.java", ("javac Webhooks.java Driver.java", "java Driver")),
    "go": Language("verify.go", "driver.go", ("go run verify.go driver.go",)),
    "php": Language("verify.php", "driver.php", ("php driver.php",)),
    "ruby": Language("verify.rb", "driver.rb", ("ruby driver.rb",)),
}


def verifier(language: str, file: str) -> Block:
    """Return the block of the page that has the verifier in a language. PHP has its opening tag where others name the file."""
    found = [block for block in blocks_of(PAGE) if block.kind == language and block.file in (file, None)]
    return next(block for block in found if "webhook-signature" in block.text)


def cases() -> list[tuple[str, bool, dict[str, Any]]]:
    """Return each vector of `v1` with its name and whether it must be accepted."""
    valid, invalid = (msgspec.json.decode((VECTORS / name).read_bytes()) for name in ("v1.json", "invalid.json"))
    found = []
    for vector in valid:
        now = vector["timestamp"]
        found.append((vector["name"], True, vector | {"now": now}))
        found.append((f"{vector['name']}, 300 s ago", True, vector | {"now": now + 300}))
        found.append((f"{vector['name']}, 301 s ago", False, vector | {"now": now + 301}))
        found.append((f"{vector['name']}, 301 s ahead", False, vector | {"now": now - 301}))
        # Each secret alone verifies a webhook that was signed during a rotation.
        found += [(f"{vector['name']}, {one}", True, vector | {"now": now, "secrets": [one]}) for one in vector["secrets"]]
        # The receiver knows a second secret that did not sign.
        other = "whsec_" + base64.b64encode(bytes(32)).decode()
        found.append((f"{vector['name']}, with another", True, vector | {"now": now, "secrets": [other, *vector["secrets"]]}))
        found.append((f"{vector['name']}, only another", False, vector | {"now": now, "secrets": [other]}))
    for stamp in ("9" * 400, "1e400", "NaN", "yesterday", "-1"):
        headers = valid[0]["headers"] | {"webhook-timestamp": stamp}
        found.append((f"timestamp {stamp[:9]}", False, valid[0] | {"now": valid[0]["timestamp"], "headers": headers}))
    found += [(vector["name"], False, vector) for vector in invalid if vector["signing"] == "v1"]
    return found


def encoded(vector: dict[str, Any]) -> str:
    """Return a case as one line: secrets, time, body, and the headers' names and values, each in base64."""
    pairs = [text for pair in vector["headers"].items() for text in pair]
    fields = [" ".join(vector["secrets"]), str(vector["now"]), vector["body"], *pairs]
    return "\t".join(base64.b64encode(field.encode()).decode() for field in fields)


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_verifier_accepts_and_refuses_what_the_vectors_say(name: str, tmp_path: Path) -> None:
    language = LANGUAGES[name]
    block = verifier(name, language.file)
    if any(shutil.which(command.split()[0]) is None for command in language.commands):
        pytest.skip(f"{name} is not installed")
    (tmp_path / language.file).write_text(block.text, encoding="utf-8")
    shutil.copy(DRIVERS / language.driver, tmp_path)
    expected = cases()
    output = ""
    for command in language.commands:
        result = subprocess.run(
            command.split(), input="".join(f"{encoded(vector)}\n" for _, _, vector in expected), capture_output=True,
            cwd=tmp_path, env=os.environ | {"GOCACHE": str(tmp_path / "go"), "GO111MODULE": "off"}, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        output = result.stdout
    verdicts = output.split()
    assert len(verdicts) == len(expected)
    wrong = [
        case for (case, accepted, _), verdict in zip(expected, verdicts, strict=True) if (verdict == "accepted") != accepted
    ]
    assert wrong == []


def test_the_verifier_of_ed25519_accepts_and_refuses_what_the_vectors_say() -> None:
    names: dict[str, Any] = {}
    exec(verifier("python", "verify_v1a.py").text, names)  # noqa: S102 -- a code block of our own page
    is_valid: Callable[..., bool] = names["is_valid"]
    valid, invalid = (msgspec.json.decode((VECTORS / name).read_bytes()) for name in ("v1a.json", "invalid.json"))
    for vector in valid:
        for key in vector["public_keys"]:
            assert is_valid(key, vector["headers"], vector["body"].encode(), vector["timestamp"]), vector["name"]
            assert not is_valid(key, vector["headers"], vector["body"].encode(), vector["timestamp"] + 301), vector["name"]
    refused = [vector for vector in invalid if vector["signing"] == "v1a"]
    assert len(refused) > 5
    for vector in refused:
        for key in vector["public_keys"]:
            assert not is_valid(key, vector["headers"], vector["body"].encode(), vector["now"]), vector["name"]
