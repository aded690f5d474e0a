"""`python -m ipn`: the IPN process, on inherited sockets (SANDBOX_LISTEN_FD) or on host and port."""

from ipn.app import create_app
from sandbox.server.runtime.process_start import start_process
from sandbox.server.serve import serve


def main() -> None:
    """Serve the IPN application. If a setting is not valid, print one line that names it and exit with code 1."""
    settings = start_process("ipn")
    serve(create_app(settings), settings.ipn_port, settings)


if __name__ == "__main__":
    main()
