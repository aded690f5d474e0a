"""A merchant's settings: default scenario, review threshold, rate limit and approval expiry."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.enumerations import DefaultScenario
from sandbox.domain.errors import Problem
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.runner import UnitOfWorkRunner

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_GET: Final = _SQL["get"]
_SET: Final = _SQL["set"]
_SET_RATE_LIMIT: Final = _SQL["set_rate_limit"]


class Settings(msgspec.Struct, kw_only=True):
    """A merchant's settings. `rate_limit` is in requests per minute, `approvals_expire_after` in seconds of its clock.

    null means: no review by amount, no rate limit, approvals never expire.
    """

    default_scenario: DefaultScenario
    review_threshold: Decimal | None
    rate_limit: int | None
    approvals_expire_after: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """The new values. UNSET keeps the current value."""

    default_scenario: DefaultScenario | UnsetType = UNSET
    review_threshold: Decimal | UnsetType | None = UNSET
    rate_limit: int | UnsetType | None = UNSET
    approvals_expire_after: int | UnsetType | None = UNSET


class SettingsService:
    """Reads and changes settings."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    async def get(self, merchant_id: str) -> Settings:
        """Return a merchant's settings. Raises NOT_FOUND if the merchant was deleted."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_GET, merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return _settings(record)

    async def change(self, context: RequestContext, change: Change) -> CommandResult:
        """Change settings. Responds with 200 and all settings. A new rate limit applies in every process within a second."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            # Read under the merchant's lock, so that no other request's change is lost.
            settings = _settings(await conn.fetchrow(_GET, context.merchant_id))
            for name in change.__slots__:
                value = getattr(change, name)
                if value is not UNSET:
                    setattr(settings, name, value)
            after = settings.approvals_expire_after
            expire_after = None if after is None else timedelta(seconds=after)
            scenario = settings.default_scenario.lower()
            await conn.execute(_SET, context.merchant_id, scenario, settings.review_threshold, expire_after)
            await conn.execute(_SET_RATE_LIMIT, context.merchant_id, settings.rate_limit)
            unit.effects.add(Effect.REQUEST_POLICY_CHANGED)
            return CommandResult(200, msgspec.json.encode(_settings(await conn.fetchrow(_GET, context.merchant_id))))

        return await self._work.run(context, action)


def _settings(record: Any) -> Settings:
    after: timedelta | None = record["approvals_expire_after"]
    return Settings(
        default_scenario=record["default_scenario"].upper(),
        review_threshold=record["review_threshold"],
        rate_limit=record["rate_limit"],
        approvals_expire_after=None if after is None else int(after.total_seconds()),
    )
