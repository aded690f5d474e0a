"""Request bodies are decoded strictly: a member given twice, or a NUL, is never let pass, however the JSON is written."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.body import decode
from sandbox.domain.errors import Problem
from sandbox.payouts.requests import CreatePayoutBody

DECODER = msgspec.json.Decoder[Any](Any)
TEXT = st.text(alphabet=st.sampled_from('ab:",\\ {}[]é\n'), max_size=6)
SPACE = st.sampled_from(["", " ", "\n", " \t"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bool]:
    """An object as JSON, written with any white space and escapes, and whether it or one in it has a member twice."""

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    def value(depth: int) -> tuple[str, bool]:
        kind = draw(st.integers(0, 3 if depth else 1))
        if kind == 2:
            return an_object(depth - 1)
        if kind == 3:
            items = [value(depth - 1) for _ in range(draw(st.integers(0, 2)))]
            return f"[{','.join(item for item, _ in items)}]", any(twice for _, twice in items)
        return (text(draw(TEXT)) if kind else "1.5"), False

    def an_object(depth: int) -> tuple[str, bool]:
        names = draw(st.lists(TEXT, max_size=4))
        members = [(text(name), *value(depth)) for name in names]
        written = ",".join(f"{draw(SPACE)}{name}{draw(SPACE)}:{draw(SPACE)}{item}{draw(SPACE)}" for name, item, _ in members)
        return f"{{{written}}}", len(set(names)) < len(names) or any(twice for *_, twice in members)

    return an_object(2)


@given(body=bodies())
def test_a_body_is_refused_exactly_if_a_member_is_given_twice(body: tuple[str, bool]) -> None:
    written, is_twice = body
    if is_twice:
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
def test_a_nul_is_refused_wherever_it_is(body: bytes) -> None:
    with pytest.raises(Problem, match="NUL"):
        decode(DECODER, body)


def test_many_members_given_twice_are_found_in_no_time_of_their_own() -> None:
    """Each of them costs what the first costs: a megabyte of them may hold nobody up."""
    body = "{" + ",".join(f'"name{number}":1' for number in [*range(40_000), *range(40_000)]) + "}"
    with pytest.raises(Problem, match="given more than once") as raised:
        decode(DECODER, body.encode())
    assert len(raised.value.errors) == 1000


@pytest.mark.parametrize("depth", [500, 5_000, 50_000])
def test_deep_nesting_is_an_answer_and_no_failure(depth: int) -> None:
    for inner in (b"1", b'"\\u0000"', b'{"a": 1, "a": 2}'):
        body = b'{"amount": ' + b"[" * depth + inner + b"]" * depth + b', "escaped": "\\n"}'
        with pytest.raises(Problem) as raised:
            decode(msgspec.json.Decoder(CreatePayoutBody), body)
        assert raised.value.code in ("MALFORMED_JSON", "VALIDATION_ERROR")
