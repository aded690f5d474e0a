"""`psp users`: manage users and their wallets, and create many of them for load tests and bulk credits."""

import csv
from collections.abc import Set
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, TextIO

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.derived import with_options_of
from sandbox.cli.failures import refused
from sandbox.cli.files import batch_output, read_items
from sandbox.cli.options import Bank, Wallet, destination, given
from sandbox.cli.references import UserId

app = App("Users with wallets.")
_PATH = "/api/v1/users"
_Amount = Annotated[str, typer.Argument(help="The amount, such as 1500.00.")]
_Account = Annotated[str | None, typer.Option("--account", help="The account number for the user's payouts.")]
_USERS_PER_REQUEST: Final = 1000
_FIRST: Final = ("Ayesha", "Bilal", "Danish", "Fatima", "Hamza", "Iqra", "Junaid", "Maryam", "Omar", "Sana", "Usman", "Zainab")
_LAST: Final = ("Ahmed", "Akhtar", "Butt", "Chaudhry", "Hussain", "Khan", "Malik", "Mirza", "Qureshi", "Raza", "Shah", "Sheikh")


@app.command("create")
@with_client
@with_options_of("users", "create")
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="The user's name.")],
    account: _Account = None,
    bank: Bank = None,
    wallet: Wallet = None,
    *,
    rest: dict[str, Any],
) -> Output:
    """Create a user with a wallet."""
    where = destination(account, bank, wallet)
    body = {"name": name, **given(destination=where), **rest}
    return _output(client.post(_PATH, body))


@app.command("batch")
@with_client
def batch(
    client: Client,
    file: Annotated[Path, typer.Argument(help="JSON or CSV: 1 to 1000 users.", dir_okay=False, exists=True)],
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Default: a random one.")] = None,
) -> Output:
    """Create many users in one request. Each succeeds or fails independently; the exit code is 1 if any is refused.

    JSON is a list of bodies as POST /users takes them, or {"users": list}. A CSV file has a header with the field names;
    destination.bank_code is a field of the destination.
    """
    return batch_output(client.post(f"{_PATH}/batch", {"users": read_items(file, "users")}, key=key), "user", _line)


@app.command("change")
@with_client
@with_options_of("users", "change")
def change(
    client: Client,
    user_id: UserId,
    account: _Account = None,
    bank: Bank = None,
    wallet: Wallet = None,
    *,
    rest: dict[str, Any],
) -> Output:
    """Change a user. Omitted options leave their fields unchanged. Payouts already requested keep their destination."""
    body = given(destination=destination(account, bank, wallet)) | rest
    if not body:
        raise typer.BadParameter("Give at least one of --name, --external-id and --account.")
    return _output(client.write("PATCH", f"{_PATH}/{user_id}", body))


@app.command("seed")
@with_client
def seed(
    client: Client,
    total: Annotated[int, typer.Option("--total", min=1, max=1_000_000, help="The number of users.")],
    export: Annotated[
        Path | None, typer.Option("--export", help="Write a CSV for `psp bulk-credit`: each user's id and an amount.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same users and amounts.")] = 1,
) -> Output:
    """Create users, 1000 per request. Users of the same --seed that already exist are skipped."""
    # Open the file first, to fail before any user is created.
    with nullcontext() if export is None else _open_export(export) as file:
        created, amounts = _create_missing(client, total, seed)
        if file is not None:
            ids = created | _existing_ids(client, amounts.keys() - created.keys())
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("uuid", "amount"))
            writer.writerows((ids[external_id], amount) for external_id, amount in amounts.items())
    count = len(created)
    found = {"total": total, "made": count, "found": total - count, "export": None if export is None else str(export)}
    text = f"{total} users: {count} created, {total - count} already existed."
    return Output(found, f"{text} Credit them with: psp bulk-credit {export}" if export else text)


def _output(user: dict[str, Any]) -> Output:
    return Output(user, _line(user))


@app.shows("get")
def _line(user: dict[str, Any]) -> str:
    where = user["destination"]
    account = "no destination" if where is None else f"{where['bank_code'] or where['wallet_code']} {where['account_number']}"
    return f"{user['id']}  {user['name']}  {account}"


@app.shows("summary")
def _totals(found: dict[str, Any]) -> str:
    return "\n".join(f"{name:<18}{amount:>16}" for name, amount in found.items() if name != "user_id")


@app.shows("record")
def _recorded(found: dict[str, Any]) -> str:
    return f"{found['id']}  {found['type']} {found['amount']}"


@app.shows("request")
def _requested(payout: dict[str, Any]) -> str:
    return f"{payout['id']}  {payout['amount']} {payout['currency']}  {payout['status']}"


def _open_export(export: Path) -> TextIO:
    try:
        return export.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{export} cannot be written: {error.strerror}") from error


def _create_missing(client: Client, total: int, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Create the users that do not exist. Return the ids of the new ones and the amounts of all, by external id."""
    from rich.console import Console
    from rich.progress import track

    random = Random(seed)  # noqa: S311 (repeatable on purpose)
    created: dict[str, str] = {}
    amounts: dict[str, str] = {}
    starts = range(0, total, _USERS_PER_REQUEST)
    for start in track(starts, "Creating users", console=Console(stderr=True)) if client.is_watched else starts:
        users = [_user(random, seed, number) for number in range(start, min(start + _USERS_PER_REQUEST, total))]
        amounts |= {user["external_id"]: f"{random.randrange(100, 500_000) / 100:.2f}" for user in users}
        # Use a new idempotency key. With an old one, the replayed response would count the users of an earlier run as created
        # now. The external ids prevent duplicates.
        results = client.post(f"{_PATH}/batch", {"users": users})["results"]
        for user, result in zip(users, results, strict=True):
            if result["status"] == 201:
                created[user["external_id"]] = result["user"]["id"]
            elif result["status"] != 409:
                raise refused(f"{user['external_id']} could not be created: {result['problem']['detail']}")
    return created, amounts


def _existing_ids(client: Client, external_ids: Set[str]) -> dict[str, str]:
    """Return the ids of existing users by external id. Reads whole pages: one request per user would take far longer."""
    found: dict[str, str] = {}
    cursor = None
    while len(found) < len(external_ids):
        page = client.get(_PATH, limit=100, cursor=cursor)
        found |= {user["external_id"]: user["id"] for user in page["data"] if user["external_id"] in external_ids}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found


def _user(random: Random, seed: int, number: int) -> dict[str, Any]:
    # The account number must not end in 0003, which makes every payment fail.
    account = f"{random.randrange(10**9, 10**10)}0001"
    return {
        "name": f"{random.choice(_FIRST)} {random.choice(_LAST)}",
        "external_id": f"seed-{seed}-{number}",
        "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": account},
    }
