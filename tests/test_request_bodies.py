"""Request bodies are decoded strictly: a duplicate field or a NUL is refused, however the JSON is written."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.errors import Problem
from sandbox.http.body import decode
from sandbox.payouts.requests import CreatePayoutBody

DECODER = msgspec.json.Decoder[Any](Any)
TEXT = st.text(alphabet=st.sampled_from('ab:",\\ {}[]é\n'), max_size=6)
SPACE = st.sampled_from(["", " ", "\n", " \t"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bool]:
    """Draw a JSON object with any white space and escapes, and whether it contains a duplicate field at any depth."""

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    def value(depth: int) -> tuple[str, bool]:
        kind = draw(st.integers(0, 3 if depth else 1))
        if kind == 2:
            return json_object(depth - 1)
        if kind == 3:
            items = [value(depth - 1) for _ in range(draw(st.integers(0, 2)))]
            return f"[{','.join(item for item, _ in items)}]", any(has_duplicate for _, has_duplicate in items)
        return (text(draw(TEXT)) if kind else "1.5"), False

    def json_object(depth: int) -> tuple[str, bool]:
        names = draw(st.lists(TEXT, max_size=4))
        fields = [(text(name), *value(depth)) for name in names]
        written = ",".join(f"{draw(SPACE)}{name}{draw(SPACE)}:{draw(SPACE)}{item}{draw(SPACE)}" for name, item, _ in fields)
        return f"{{{written}}}", len(set(names)) < len(names) or any(has_duplicate for *_, has_duplicate in fields)

    return json_object(2)


@given(body=bodies())
def test_a_body_is_refused_exactly_if_it_has_a_duplicate_field(body: tuple[str, bool]) -> None:
    written, has_duplicate = body
    if has_duplicate:
        with pytest.raises(Problem, match="given more than once"):
            decode(DECODER, written.encode())
    else:
        assert decode(DECODER, written.encode()) == json.loads(written)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\\u0000"}', b'{"\\u0000": 1}', b'{"a": ["x", "\\u0000"]}', b'{"a": {"b": "\\u0000"}}', b'["\\u0000"]',
        b'[["\\u0000"]]',
    ],
)  # fmt: skip
def test_a_nul_is_refused_anywhere_in_a_body(body: bytes) -> None:
    with pytest.raises(Problem, match="NUL"):
        decode(DECODER, body)


def test_many_duplicate_fields_are_found_in_linear_time() -> None:
    """Each duplicate costs as much as the first, so that a megabyte of them does not block other requests."""
    body = "{" + ",".join(f'"name{number}":1' for number in [*range(40_000), *range(40_000)]) + "}"
    with pytest.raises(Problem, match="given more than once") as raised:
        decode(DECODER, body.encode())
    assert len(raised.value.errors) == 1000


@pytest.mark.parametrize("depth", [500, 5_000, 50_000])
def test_deep_nesting_is_refused_with_a_client_error(depth: int) -> None:
    for inner in (b"1", b'"\\u0000"', b'{"a": 1, "a": 2}'):
        body = b'{"amount": ' + b"[" * depth + inner + b"]" * depth + b', "escaped": "\\n"}'
        with pytest.raises(Problem) as raised:
            decode(msgspec.json.Decoder(CreatePayoutBody), body)
        assert raised.value.code in ("MALFORMED_JSON", "VALIDATION_ERROR")
