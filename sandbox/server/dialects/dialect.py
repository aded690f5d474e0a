"""What a dialect is: another provider's wire format, declared over the services that `/api/v1` calls.

A dialect has no tables, balances or states of its own. Its operations call services, its encoders are pure functions, and the
only thing that it stores is the `wire` of a webhook endpoint: what was said there and has no native field.
"""

import functools
import importlib.util
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sandbox.domain.payout import Payout
from sandbox.http.operation import Operation, operations_of
from sandbox.http.request import Request
from sandbox.payouts.balance.service import BalanceService
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.history import HistoryEntry
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.service import PayoutService
from sandbox.server.dialects.comparison import Comparison
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.deliveries import DeliveryService
from sandbox.webhooks.endpoints.secrets import SecretService
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.worlds.merchants.keys import KeyService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services that a dialect's operations call."""

    work: UnitOfWorkRunner
    payouts: PayoutService
    reads: PayoutReads
    balance: BalanceService
    directory: Directory
    endpoints: EndpointService
    secrets: SecretService
    deliveries: DeliveryService
    keys: KeyService


@dataclass(frozen=True, slots=True)
class Refusal:
    """A problem, to be rendered as the other provider would."""

    status: int
    code: str
    """A code of `sandbox.domain.errors.CODES`."""
    detail: str
    errors: Sequence[tuple[str, str]] = ()
    """Invalid fields of the request, with what is wrong."""


@dataclass(frozen=True, slots=True)
class PayoutEvent:
    """A payout's event, as it is stored, and the payout's changes up to it."""

    merchant_id: str
    event_id: str
    event_type: str
    at: str
    payout: Payout
    history: Sequence[HistoryEntry]
    wire: Mapping[str, Any]
    """What the endpoint's `wire` has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A dialect's declarations."""

    name: str
    title: str
    prefix: str
    """The beginning of all its paths, and of no other's: anything else below it is the dialect's own 404."""
    key_header: str
    """The header that carries the API key. The native headers of a key are not read."""
    apis: Callable[[Services], Sequence[object]]
    """Returns the objects whose methods are its operations."""
    guard: Callable[[Request], None]
    """Raises a problem if the caller may not use the path. Called before each operation."""
    refuse: Callable[[Refusal], tuple[int, bytes]]
    """Returns the status and body of a refusal."""
    event: Callable[[PayoutEvent], bytes] | None = None
    """Returns the body of a webhook, for endpoints of the dialect. None if they get the native one."""
    event_types: frozenset[str] = frozenset()
    """The native types of the events that endpoints of the dialect can get."""
    payout_id: Callable[[str], str] = str
    """Returns a payout's id as it is in events."""
    comparison: Comparison | None = None
    """How `psp dialect compare` compares it with the provider's own test environment."""

    load_script: Path | None = None
    """A script for wrk that creates payouts, for `psp bench dialect`. It gets the accounts in PSP_BENCH_PATHS."""
    payment: Callable[[str, str], tuple[str, Mapping[str, str]]] | None = None
    """Takes a merchant and a payout. Returns which of its operations shows the payout, and the parameters of the path."""
    remark: str = ""
    """What the console says beside a payout in this format."""

    def operations(self, services: Services) -> list[Operation]:
        """Return its operations, whose handlers all take the request.

        Raises TypeError as `operations_of` does, and ValueError for a path outside the prefix.
        """
        found = operations_of(*self.apis(services))
        for operation in found:
            if not operation.path.startswith(self.prefix) or operation.dialect != self.name:
                raise ValueError(f"{operation.id} is not below {self.prefix}, or not declared as of {self.name}")
        return [replace(operation, id=f"{self.name}_{operation.id}", handler=self._guarded(operation)) for operation in found]

    def _guarded(self, operation: Operation) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(operation.handler)
        async def handler(**parts: Any) -> Any:
            self.guard(parts["request"])
            return await operation.handler(**parts)

        return handler


def load_dialects(built_in: Sequence[Dialect], folder: str | None) -> Mapping[str, Dialect]:
    """Return the dialects by name: those built in, and the DIALECT of each module or package in `folder`.

    Raises ValueError if two have the same name or overlapping paths, and whatever such a module raises.
    """
    found: dict[str, Dialect] = {}
    private = [] if folder is None else [_load(path) for path in sorted(Path(folder).iterdir()) if _is_module(path)]
    for dialect in (*built_in, *private):
        for other in found.values():
            overlaps = dialect.prefix.startswith(other.prefix) or other.prefix.startswith(dialect.prefix)
            if dialect.name == other.name or overlaps:
                raise ValueError(f"the dialects {other.name} and {dialect.name} have the same name or overlapping paths")
        if dialect.prefix.startswith(_NATIVE):
            raise ValueError(f"the paths of the dialect {dialect.name} are native ones")
        found[dialect.name] = dialect
    return MappingProxyType(found)


_NATIVE: Final = ("/api/", "/sandbox/", "/console", "/docs", "/vendor/", "/aggregator/")


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def _load(path: Path) -> Dialect:
    file = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(f"private_dialect_{path.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, "DIALECT", None)
    if not isinstance(found, Dialect):
        raise ValueError(f"{path} has no DIALECT")
    return found
