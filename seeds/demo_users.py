"""Users of the second demo merchant. The first merchant has none, so that its balance stays a round number.

Ayesha Khan   earned 1000.00, spent 200.00, requested 300.00, which waits for approval
Bilal Ahmed   three pending sales of 40.00
Sana Malik    one pending sale of 40.00; her account number ends in 0003, so every payment to her fails
Umar Sheikh   no money and no destination
"""

import asyncio
import hashlib
from typing import Any, Final

import msgspec

from sandbox.domain.enumerations import RecordedType
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext
from sandbox.http.paging import PageWindow
from sandbox.infrastructure.settings import Settings
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.requests import CreateTransactionBody, CreateUserBody, DestinationBody, RequestPayoutBody
from sandbox.users.sales.requests import CreateSaleBody
from sandbox.users.sales.service import SalesService
from sandbox.users.service import UserService

USERS_MERCHANT: Final = "00000000-0000-7000-8000-000000000002"
_LAST: Final = "umar"


async def seed_users(settings: Settings, work: UnitOfWorkRunner, directory: Directory) -> None:
    """Create the users, their transactions, payout request and sales, unless they exist.

    The merchant must exist, and the connection pool must be open. Raises ValueError if a step is refused.
    """
    users = UserService(work, directory)
    # The last user is created last, so if it exists, everything does. A run that resumes after a crash uses the same
    # idempotency keys, so nothing is done twice.
    if not (await users.list_users(USERS_MERCHANT, PageWindow(1, MAX_ID, MIN_ID), {"external_id": _LAST})).data:
        await _create_all(users, SalesService(work), settings.public_url)


async def _create_all(users: UserService, sales: SalesService, public_url: str) -> None:
    def once(name: str) -> RequestContext:
        """Return a context whose idempotency key is always the same for `name`."""
        key = IdempotencyKey(f"demo-users-{name}", hashlib.sha256(name.encode()).digest())
        return RequestContext(USERS_MERCHANT, key, "seeds", "seeds", public_url)

    ayesha = await _create_user(users, once("ayesha"), "Ayesha Khan", "ayesha", "12345678900001")
    bilal = await _create_user(users, once("bilal"), "Bilal Ahmed", "bilal", "12345678900002")
    sana = await _create_user(users, once("sana"), "Sana Malik", "sana", "12345678900003")
    # Sent concurrently, they share one commit.
    results = await asyncio.gather(
        users.create_user_transaction(once("earned"), _transaction("EARNED", b"1000.00", "commission"), ayesha),
        users.create_user_transaction(once("spent"), _transaction("SPENT", b"200.00", "shopping"), ayesha),
        users.request_user_payout(once("request"), RequestPayoutBody(amount=msgspec.Raw(b"300.00")), ayesha),
    )
    for result in results:
        _created(result)
    for number, user_id in enumerate((bilal, bilal, bilal, sana)):
        body = CreateSaleBody(user_id=user_id, brand="Khaadi", earning=msgspec.Raw(b'"40.00"'))
        _created(await sales.create_sale(once(f"sale-{number}"), body))
    await _create_user(users, once(_LAST), "Umar Sheikh", _LAST, None)


def _transaction(kind: RecordedType, amount: bytes, reference: str) -> CreateTransactionBody:
    return CreateTransactionBody(type=kind, amount=msgspec.Raw(amount), reference=reference)


async def _create_user(
    users: UserService, context: RequestContext, name: str, external_id: str, account_number: str | None
) -> str:
    """Create a user, and return the id."""
    destination = None
    if account_number is not None:
        destination = DestinationBody(dest_type="BANK", bank_code="HBL", account_number=account_number)
    body = CreateUserBody(name=name, external_id=external_id, destination=destination)
    user_id: str = _created(await users.create_user(context, body))["id"]
    return user_id


def _created(result: CommandResult) -> Any:
    if result.status != 201:
        raise ValueError(f"The demo users could not be created: {result.body.decode()}")
    return msgspec.json.decode(result.body)
