"""Send a response's head and body with one system call."""

import asyncio


class JoinedWrites:
    """Wraps a connection's transport. Joins the first write, a response's head, with the next one, usually its body.

    A head without a body is sent in the next iteration of the event loop. uvloop makes one system call per write, each of which
    wakes the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.can_write_eof = transport.can_write_eof
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        """Send data, or hold it for the next write if nothing is held."""
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def write_eof(self) -> None:
        """Send what is held, and close the sending side."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what is held, and close the connection."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that were not sent yet."""
        return len(self._held) + self._transport.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Exchange the protocol that receives the connection's data."""
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        data, self._held = self._held, b""
        if data and not self._transport.is_closing():  # uvloop raises an error if the connection was lost meanwhile
            self._transport.write(data)
