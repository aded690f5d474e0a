"""A second demo merchant, whose users earn, spend, sell and wait for money; the first one keeps its round balance.

Ayesha Khan   earned 1000.00, spent 200.00, asked for 300.00, which waits to be approved
Bilal Ahmed   three pending sales of 40.00
Sana Malik    one pending sale of 40.00; her destination ends in 0003, so that every payment to her fails
Umar Sheikh   has nothing and no destination
"""

import asyncio
import hashlib
from decimal import Decimal
from typing import Any, Final

import msgspec

from sandbox.domain.directory import Directory
from sandbox.domain.ids import LARGEST_ID, SMALLEST_ID
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext
from sandbox.http.paging import Window
from sandbox.infrastructure.settings import Settings
from sandbox.sales.requests import CreateSaleBody
from sandbox.sales.service import SalesService
from sandbox.unit_of_work.runner import UnitsOfWork
from sandbox.users.requests import CreateUserBody, DestinationBody
from sandbox.users.service import UserService
from sandbox.users.summary_cache import SummaryCache

USERS_MERCHANT: Final = "00000000-0000-7000-8000-000000000002"
_LAST: Final = "umar"
_EARNING: Final = Decimal("40.00")


async def seed_users(settings: Settings, work: UnitsOfWork, directory: Directory) -> None:
    """Make the users and what they did, once. The merchant must be there, and the pool be open.

    Raises ValueError if one of the steps is refused.
    """
    cache = SummaryCache(settings.redis_url)
    users = UserService(work, directory, cache)
    try:
        # The last one is made last, and says that all else is there. Who died before finds its own keys, and goes on.
        if not (await users.list(USERS_MERCHANT, Window(1, LARGEST_ID, SMALLEST_ID), _LAST)).data:
            await _play(users, SalesService(work), settings.public_url)
    finally:
        await cache.close()


async def _play(users: UserService, sales: SalesService, public_url: str) -> None:
    def once(name: str) -> RequestContext:
        key = IdempotencyKey(f"demo-users-{name}", hashlib.sha256(name.encode()).digest())
        return RequestContext(USERS_MERCHANT, key, "seeds", "seeds", public_url)

    ayesha = await _user(users, once("ayesha"), "Ayesha Khan", "ayesha", "12345678900001")
    bilal = await _user(users, once("bilal"), "Bilal Ahmed", "bilal", "12345678900002")
    sana = await _user(users, once("sana"), "Sana Malik", "sana", "12345678900003")
    # In flight together, they commit together.
    moved = await asyncio.gather(
        users.record(once("earned"), ayesha, "EARNED", Decimal("1000.00"), "commission"),
        users.record(once("spent"), ayesha, "SPENT", Decimal("200.00"), "shopping"),
        users.request_payout(once("request"), ayesha, Decimal("300.00")),
    )
    for result in moved:
        _made(result)
    for number, user_id in enumerate((bilal, bilal, bilal, sana)):
        body = CreateSaleBody(user_id=user_id, brand="Khaadi", earning=msgspec.Raw(b'"40.00"'))
        _made(await sales.create(once(f"sale-{number}"), body, _EARNING))
    await _user(users, once(_LAST), "Umar Sheikh", _LAST, None)


async def _user(users: UserService, context: RequestContext, name: str, external_id: str, account_number: str | None) -> str:
    """Make a user, and return the id."""
    destination = None
    if account_number is not None:
        destination = DestinationBody(dest_type="BANK", bank_code="HBL", account_number=account_number)
    body = CreateUserBody(name=name, external_id=external_id, destination=destination)
    user_id: str = _made(await users.create(context, body))["id"]
    return user_id


def _made(answer: CommandResult) -> Any:
    if answer.status != 201:
        raise ValueError(f"the demo users cannot be made: {answer.body.decode()}")
    return msgspec.json.decode(answer.body)
