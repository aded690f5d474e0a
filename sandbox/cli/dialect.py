"""`psp dialect compare`: one scenario on the sandbox and on a provider's own test environment, and the first difference."""

import json
import os
from typing import Annotated, Any, Final, NamedTuple

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_operator
from sandbox.cli.failures import check_failed, unreachable, usage_error
from sandbox.infrastructure.settings import LOOPBACK_HOSTS
from sandbox.server.dialects.comparison import Ask, Comparison, Difference, first_difference, shape_of
from sandbox.server.dialects.dialect import load_dialects
from sandbox.server.dialects.registration import BUILT_IN

app = App("Dialects: the APIs of other providers, which the sandbox speaks.")
_WRONG_KEY: Final = "sk_test_of_nobody"
_OPENING_BALANCE: Final = "10000.00"
_MAX_ANSWER: Final = 1024 * 1024
_SECONDS: Final = 30


class _Answer(NamedTuple):
    status: int
    body: Any


class _Side(NamedTuple):
    """A server of the dialect, and who calls it."""

    base_url: str
    header: str
    key: str
    account: str

    def ask(self, ask: Ask) -> _Answer:
        """Send a request, and return the answer; the body is None if it is not JSON. Raises Failure."""
        import httpx

        headers = {self.header: _WRONG_KEY if ask.has_wrong_key else self.key}
        content = {} if ask.body is None else {"json": ask.body}
        try:
            # A redirect could lead to a host that was not checked, so none is followed.
            with (
                httpx.Client(timeout=_SECONDS, trust_env=False) as http,
                http.stream(ask.method, self.base_url + ask.path, params=ask.query, headers=headers, **content) as response,
            ):
                raw = b""
                for chunk in response.iter_bytes():
                    raw += chunk
                    if len(raw) > _MAX_ANSWER:
                        raise unreachable(f"{self.base_url} answered {ask.name} with more than {_MAX_ANSWER} bytes.")
        except httpx.TransportError as error:
            raise unreachable(f"{self.base_url} cannot be reached: {error or type(error).__name__}.") from None
        return _Answer(response.status_code, _json(raw))


@app.command("compare")
@with_operator
def compare(
    client: Client,
    name: Annotated[str, typer.Argument(metavar="DIALECT", help="The dialect's name, as in GET /openapi.")],
    base_url: Annotated[str, typer.Option("--base-url", help="The base URL of the provider's test environment.")],
    key: Annotated[str, typer.Option("--key", envvar="PSP_DIALECT_KEY", help="Your key there. Live keys are refused.")],
    account: Annotated[str, typer.Option("--account", help="Your account there, as in its paths.")],
) -> Output:
    """Run one scenario on the sandbox and on a provider's own test environment, and report the first difference.

    It creates payouts there. Answers are compared by shape: their statuses, members, types, and the values of enumerations.
    Here, it uses a merchant of its own, which it deletes. The exit code is 1 if they differ.
    """
    dialect = load_dialects(BUILT_IN, os.environ.get("SANDBOX_DIALECTS")).get(name)
    if dialect is None or dialect.comparison is None:
        raise usage_error(f"{name} is not a dialect that can be compared.")
    objection = dialect.comparison.objection(base_url, key, LOOPBACK_HOSTS)
    if objection is not None:
        raise usage_error(objection)
    theirs = _Side(base_url.rstrip("/"), dialect.key_header, key, account)
    merchant = client.post("/sandbox/v1/merchants", {"name": f"compared with {name}", "opening_balance": _OPENING_BALANCE})
    try:
        own = dialect.comparison.account_of(merchant["merchant_id"])
        ours = _Side(client.url.rstrip("/") + dialect.prefix.rstrip("/"), dialect.key_header, merchant["api_key"], own)
        return _compared(dialect.comparison, ours, theirs)
    finally:
        client.send("DELETE", f"/sandbox/v1/merchants/{merchant['merchant_id']}")


def _compared(comparison: Comparison, ours: _Side, theirs: _Side) -> Output:
    scenarios = comparison.scenario(ours.account), comparison.scenario(theirs.account)
    asked: list[str] = []
    found: Difference | None = None
    asks = [next(scenario) for scenario in scenarios]
    while found is None:
        asked.append(asks[0].name)
        answers = ours.ask(asks[0]), theirs.ask(asks[1])
        found = _difference(asks[0], *answers)
        try:
            asks = [scenario.send(answer.body) for scenario, answer in zip(scenarios, answers, strict=True)]
        except StopIteration:
            break
        except (KeyError, TypeError):
            if found is None:
                raise check_failed(f"Both sides refuse {asked[-1]}, so the rest cannot be compared.") from None
    return _output(asked, found)


def _difference(ask: Ask, ours: _Answer, theirs: _Answer) -> Difference | None:
    if ours.status != theirs.status:
        return Difference("status", str(ours.status), str(theirs.status))
    return first_difference(shape_of(ours.body, ask.varying), shape_of(theirs.body, ask.varying))


def _output(asked: list[str], found: Difference | None) -> Output:
    lines = [f"same    {name}" for name in (asked if found is None else asked[:-1])]
    response: dict[str, Any] = {"asked": asked, "difference": None}
    if found is None:
        return Output(response, "\n".join(lines))
    where = found.place or "the whole body"
    lines += [f"DIFFERS {asked[-1]}: {where}", f"        here:  {found.ours}", f"        there: {found.theirs}"]
    response["difference"] = {"asked": asked[-1], **found._asdict()}
    text = f"The answer to {asked[-1]} differs at {where}: {found.ours} here, {found.theirs} there."
    return Output(response, "\n".join(lines), check_failed(text))


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
