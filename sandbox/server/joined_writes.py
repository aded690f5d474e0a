"""Send a response's head and body with one system call."""

import asyncio


class JoinedWrites:
    """Wraps a connection's transport. Joins the first write, a response's head, with the next one, usually its body.

    If no body follows, the head is sent in the next iteration of the event loop. Without this class, uvloop would make one
    system call per write, and each would wake the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffered = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.can_write_eof = transport.can_write_eof
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        """Buffer the first data, and send it with the next data that is written."""
        if self._buffered:
            data, self._buffered = self._buffered + data, b""
            self._transport.write(data)
        elif data:
            self._buffered = data
            self._loop.call_soon(self._flush)

    def write_eof(self) -> None:
        """Send the buffered data, and close the sending side."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send the buffered data, and close the connection."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that have not been sent yet."""
        return len(self._buffered) + self._transport.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set the protocol that receives the connection's data."""
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        data, self._buffered = self._buffered, b""
        if data and not self._transport.is_closing():  # if the connection was lost, uvloop would raise an error
            self._transport.write(data)
