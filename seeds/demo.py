"""The demo merchants: one with a balance, an admin key and a member key, and one with users.

The services create them. Seeding again changes nothing.
"""

import base64
import hashlib
import hmac
from decimal import Decimal
from pathlib import Path
from typing import Final

from sandbox.domain.unit import RequestContext
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import (
    DEVELOPMENT_API_KEY,
    DEVELOPMENT_MEMBER_KEY,
    DEVELOPMENT_USERS_KEY,
    LOOPBACK_HOSTS,
    Settings,
)
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.scenarios.builtin import load_catalogue, read_rules
from sandbox.payouts.scenarios.service import ScenarioService
from sandbox.server.runtime.ready import SeedKeys
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.worlds.merchants.key_format import KEY_PREFIX
from sandbox.worlds.merchants.keys import KeyService
from sandbox.worlds.merchants.requests import MerchantSpec
from sandbox.worlds.merchants.service import MerchantService
from seeds.demo_users import USERS_MERCHANT, seed_users

DEMO_MERCHANT: Final = "00000000-0000-7000-8000-000000000001"
OPENING_BALANCE: Final = Decimal("1000000.00")


async def seed(settings: Settings, scenarios: Path | None = None) -> SeedKeys:
    """Create the demo merchants if they do not exist, and return their keys and the first one's secrets.

    `scenarios` is a TOML file with custom scenarios for the first merchant; each replaces the one with the same name.
    Raises ValueError, which names the place of the error, if the file is not valid.
    """
    directory = load_directory()
    rules = [] if scenarios is None else read_rules(scenarios, directory)
    box = SecretBox(settings.secret_key)
    work = UnitOfWorkRunner(load_catalogue(), Notifier())
    keys = KeyService(work, box)
    merchants = MerchantService(work, box, EndpointService(work, box, settings.webhook_allow), settings.ipn_url)
    api_key, member_api_key, users_key = _keys(settings)
    await open_pool(settings.database_url, 2)
    try:
        if await merchants.secrets(DEMO_MERCHANT) is None:
            await merchants.create(MerchantSpec("Demo merchant", OPENING_BALANCE, merchant_id=DEMO_MERCHANT, api_key=api_key))
        # Check each key: an earlier run may have died after creating the merchant, and the keys change with the host and
        # SANDBOX_SECRET_KEY.
        await keys.ensure_key(DEMO_MERCHANT, "admin", "demo admin", api_key)
        await keys.ensure_key(DEMO_MERCHANT, "member", "demo member", member_api_key)
        secrets = await merchants.secrets(DEMO_MERCHANT)
        assert secrets is not None
        if settings.host not in LOOPBACK_HOSTS:
            # The development keys are in the public source. They must not work where other hosts can connect.
            for known in (DEVELOPMENT_API_KEY, DEVELOPMENT_MEMBER_KEY):
                await keys.revoke_key_by_value(DEMO_MERCHANT, known)
            await keys.revoke_key_by_value(USERS_MERCHANT, DEVELOPMENT_USERS_KEY)
        if await merchants.secrets(USERS_MERCHANT) is None:
            spec = MerchantSpec("Demo merchant with users", OPENING_BALANCE, merchant_id=USERS_MERCHANT, api_key=users_key)
            await merchants.create(spec)
        await keys.ensure_key(USERS_MERCHANT, "admin", "demo users", users_key)
        await seed_users(settings, work, directory)
        context = RequestContext(DEMO_MERCHANT, None, "seeds", "--scenarios", settings.public_url)
        await ScenarioService(work, directory).put(context, rules)
        return SeedKeys(DEMO_MERCHANT, api_key, member_api_key, *secrets, users_key)
    finally:
        await close_pool()


def _keys(settings: Settings) -> tuple[str, str, str]:
    """Return the keys: on loopback the well-known ones, elsewhere keys that are always derived from SANDBOX_SECRET_KEY."""
    if settings.host in LOOPBACK_HOSTS:
        return DEVELOPMENT_API_KEY, DEVELOPMENT_MEMBER_KEY, DEVELOPMENT_USERS_KEY

    def derive(name: str) -> str:
        digest = hmac.digest(settings.secret_key, f"demo {name} key".encode(), hashlib.sha256)
        return KEY_PREFIX + base64.b32encode(digest[:30]).decode().lower()

    return derive("admin"), derive("member"), derive("users")
