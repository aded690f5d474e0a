"""`python -m ipn`: the IPN process, on a socket that it inherits (SANDBOX_LISTEN_FD) or on host and port."""

import sys

from ipn.app import create_app
from sandbox.infrastructure.logs import configure_logs
from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.runtime.lifeline import follow_lifeline
from sandbox.server.serve import serve


def main() -> None:
    """Serve, or say in one line which setting is wrong and exit 1."""
    follow_lifeline()
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.exit(f"settings: {error}")
    configure_logs(settings.log_level, settings.log_format, "ipn")
    serve(create_app(settings), settings.ipn_port, settings.host, settings.public_url)


main()
