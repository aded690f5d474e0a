"""The rights of a call: the keys that came with it, and the clients of the sandbox's API that use them."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from psp_sandbox.client import AsyncClient
from sandbox.cli.mcp_server.results import Refusal

USER_AGENT: Final = "psp-sandbox-mcp"
"""The User-Agent that marks this server's own calls in the journal."""
_SECONDS: Final = 30.0
"""The timeout of one call of the API."""
_MAX_WORLDS: Final = 1000
"""How many worlds' keys are kept. The oldest is forgotten first."""


@dataclass(frozen=True)
class Keys:
    """The keys of one caller. `api_key` belongs to a merchant, `admin_key` to the operator."""

    api_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> "Keys":
        """Return the keys in a request's headers. Raises Refusal if a key cannot be one."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        keys = cls(headers.get("x-api-key") or bearer or None, headers.get("x-admin-key") or None)
        for key in (keys.api_key, keys.admin_key):
            if key is not None and not (key.isascii() and key.isprintable()):
                raise Refusal(
                    "INVALID_API_KEY",
                    "A key consists of printable ASCII characters.",
                    "Ask the user to check the configured keys.",
                )
        return keys


class Access:
    """Gives a call its client of the sandbox's API.

    `own` are the server's own keys. None means that every call brings its keys, as over HTTP: then the server has none, so that
    a caller without a key has no rights at all.

    The keys of worlds that `create_world` created stay here. A caller may use a world by its id only with the admin key that
    created it: that key could delete the world, too.
    """

    def __init__(self, url: str, own: Keys | None, folder: Path | None = None) -> None:
        self.url = url
        self.folder = folder
        """The only folder in which tools may write files, an absolute path; None if they may write none."""
        self._own = own
        self._worlds: OrderedDict[tuple[str, str], str] = OrderedDict()

    def keys(self, headers: Mapping[str, str] | None) -> Keys:
        """Return the caller's keys. Raises Refusal if a header has something that is not a key."""
        return self._own if self._own is not None else Keys.of_headers(headers or {})

    def merchant(self, keys: Keys, world: str | None) -> AsyncClient:
        """Return a client for a merchant: the one of a world, or else the one of the caller's key. Raises Refusal."""
        api_key = keys.api_key if world is None else self._worlds.get((keys.admin_key or "", world))
        if api_key is None and world is not None:
            raise Refusal(
                "UNKNOWN_WORLD",
                f"This server has no key for the world {world}.",
                "Create a world with create_world and use its id. Worlds that others created, or that were created before this "
                "server started, can only be used with their own API key.",
            )
        if api_key is None:
            raise Refusal(
                "MISSING_API_KEY",
                "No API key came with the call.",
                "Give `world`, or ask the user to configure a merchant's key for this server.",
            )
        return AsyncClient(self.url, api_key=api_key, timeout=_SECONDS, retries=0, user_agent=USER_AGENT)

    def operator(self, keys: Keys) -> AsyncClient:
        """Return a client with the operator's key. Raises Refusal if the caller has none."""
        if keys.admin_key is None:
            raise Refusal(
                "MISSING_ADMIN_KEY",
                "Creating, listing and deleting worlds needs the operator's key.",
                "Ask the user to configure the operator's key for this server. Other tools work without it.",
            )
        return AsyncClient(self.url, admin_key=keys.admin_key, timeout=_SECONDS, retries=0, user_agent=USER_AGENT)

    def keep(self, keys: Keys, world: str, api_key: str) -> None:
        """Keep the key of a new world."""
        self._worlds[keys.admin_key or "", world] = api_key
        while len(self._worlds) > _MAX_WORLDS:
            self._worlds.popitem(last=False)

    def forget(self, keys: Keys, world: str) -> None:
        """Forget the key of a deleted world."""
        self._worlds.pop((keys.admin_key or "", world), None)

    def has(self, keys: Keys, world: str) -> bool:
        """Whether the caller can use this world by its id."""
        return (keys.admin_key or "", world) in self._worlds

    def secrets(self, keys: Keys, world: object) -> set[str]:
        """Return the keys of a call, which its result may not contain. `world` is the argument, whatever its type."""
        used = self._worlds.get((keys.admin_key or "", world)) if isinstance(world, str) else None
        return {key for key in (keys.api_key, keys.admin_key, used) if key}
