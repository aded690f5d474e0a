"""`python -m ipn`: the IPN process, on a socket that it inherits (SANDBOX_LISTEN_FD) or on host and port."""

from ipn.app import create_app
from sandbox.runtime.process_start import start_process
from sandbox.server.serve import serve


def main() -> None:
    """Serve, or say in one line which setting is wrong and exit 1."""
    settings = start_process("ipn")
    serve(create_app(settings), settings.ipn_port, settings.host, settings.public_url)


if __name__ == "__main__":
    main()
