"""The first steps of every sandbox process."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from sandbox.infrastructure.logs import configure_logs
from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.runtime.lifeline import follow_lifeline

UP_FILE: Final = "SANDBOX_UP_FILE"
"""Names the file in which a process without a port says that it is up."""


def start_process(name: str) -> Settings:
    """Follow the supervisor's lifeline, load the settings, and configure logging under `name`.

    Exits with code 1 and a message if a setting is wrong.
    """
    follow_lifeline()
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.exit(f"settings: {error}")
    configure_logs(settings.log_level, settings.log_format, name)
    return settings


def report_up() -> None:
    """Tell the supervisor that this process now does its work. Without a supervisor: nothing."""
    path = os.environ.get(UP_FILE)
    if path:
        with contextlib.suppress(OSError):  # the supervisor then takes it to be up once it has lasted a while
            Path(path).write_text(str(os.getpid()))
