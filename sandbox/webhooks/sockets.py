"""Open the sockets of the calls that we make. If this machine cannot, the log says so: no endpoint or vendor is at fault."""

import socket

import structlog

_log = structlog.get_logger()


def open_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """A new socket. Raises OSError, which is logged: too many open files, no memory."""
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        _log.error("no_socket", error=repr(error)[:300])
        raise
