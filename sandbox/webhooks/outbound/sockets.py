"""Open sockets for outgoing calls. Log a failure: its cause is this machine, not the endpoint or vendor."""

import socket

import structlog

_log = structlog.get_logger()


def open_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """Return a new socket. Logs and raises OSError, such as too many open files or out of memory."""
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        _log.error("no_socket", error=repr(error)[:300])
        raise
