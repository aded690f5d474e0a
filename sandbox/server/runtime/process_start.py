"""The first steps of each of the sandbox's processes."""

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Final

from sandbox.infrastructure import tracing
from sandbox.infrastructure.logs import configure_logs
from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.server.runtime.lifeline import follow_lifeline

UP_FILE: Final = "SANDBOX_UP_FILE"
"""The environment variable with the path of the file in which a process without a port reports that it is up."""

_OBJECTS_PER_COLLECTION: Final = 20_000
"""How many new objects start a garbage collection. Python's default of 700 starts one every few requests."""


def start_process(name: str) -> Settings:
    """Follow the supervisor's lifeline, load the settings, and configure logging and tracing under `name`.

    Exits with code 1 and a message if a setting is not valid, or the disk is full.
    """
    follow_lifeline()
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.exit(f"settings: {error}")
    configure_logs(settings.log_level, settings.log_format, name)
    if settings.exports_traces:
        tracing.start(name)
    # Not at the top: the supervisor imports this module before it sets PROMETHEUS_MULTIPROC_DIR, which must come first.
    from sandbox.infrastructure.metrics import reserve_files

    try:
        reserve_files()
    except OSError as error:
        sys.exit(f"metrics: no space for their files ({error.strerror}): free some space on the disk of the data directory")
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    return settings


def report_ready() -> None:
    """Report to the supervisor that this process is ready. Without a supervisor, do nothing."""
    path = os.environ.get(UP_FILE)
    if path:
        with contextlib.suppress(OSError):  # the supervisor then considers it up after a while
            Path(path).write_text(str(os.getpid()))
