"""PSP Sandbox for Python programs: a typed client, and fixtures for pytest. The sandbox itself runs in its own processes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psp_sandbox.client import AsyncClient, Client, ProblemError

__all__ = ["AsyncClient", "Client", "ProblemError"]


if not TYPE_CHECKING:  # it would hide misspelt names from type checkers

    def __getattr__(name: str) -> Any:
        # pytest imports this package in every project that has the plugin; the client is loaded by those that use it.
        if name in __all__:
            from psp_sandbox import client

            return getattr(client, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
