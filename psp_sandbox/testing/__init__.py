"""The types of the pytest plugin's fixtures, for annotations: `def test_x(psp: World, live_app: StartApp) -> None`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psp_sandbox.testing.faults import Fault
    from psp_sandbox.testing.live_app import AppError, LiveApp, StartApp
    from psp_sandbox.testing.live_process import LiveProcess, StartProcess
    from psp_sandbox.testing.options import UsageError
    from psp_sandbox.testing.results import Balance
    from psp_sandbox.testing.sandbox import Sandbox
    from psp_sandbox.testing.webhooks import Received, Webhook, Webhooks
    from psp_sandbox.testing.world import World

__all__ = [
    "AppError", "Balance", "Fault", "LiveApp", "LiveProcess", "Received", "Sandbox", "StartApp", "StartProcess", "UsageError",
    "Webhook", "Webhooks", "World",
]  # fmt: skip
_MODULES = {
    "Fault": "faults", "AppError": "live_app", "LiveApp": "live_app", "StartApp": "live_app", "LiveProcess": "live_process",
    "StartProcess": "live_process", "UsageError": "options", "Balance": "results", "Sandbox": "sandbox",
    "Received": "webhooks", "Webhook": "webhooks", "Webhooks": "webhooks", "World": "world",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # pytest loads the plugin in every project that has it installed, so nothing is imported before it is used.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
