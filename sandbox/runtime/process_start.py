"""The first steps of every sandbox process."""

import sys

from sandbox.infrastructure.logs import configure_logs
from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.runtime.lifeline import follow_lifeline


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
