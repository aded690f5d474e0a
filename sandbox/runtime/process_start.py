"""What every process of the sandbox does first."""

import sys

from sandbox.infrastructure.logs import configure_logs
from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.runtime.lifeline import follow_lifeline


def start_process(name: str) -> Settings:
    """Follow the supervisor's lifeline, read the settings, and log under `name`. A wrong setting ends the process, with 1."""
    follow_lifeline()
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.exit(f"settings: {error}")
    configure_logs(settings.log_level, settings.log_format, name)
    return settings
