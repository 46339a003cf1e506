"""Just enough HTTP/2 (RFC 9113) to begin gRPC messages and never end them, thousands at a time."""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS = 4
WINDOW_BYTES = 65_535
"""What may be sent before the other side grants more."""
CHUNK_BYTES = 16_384


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field without indexing (RFC 7541, 6.2.2); both parts shorter than 127 bytes."""
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def _headers(path: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(_literal(name, value) for name, value in fields.items())


class HalfSender:
    """One connection with many calls, each with a message that is announced and never finished."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next_stream = 1
        self._reading = asyncio.ensure_future(self._drain())

    @classmethod
    async def connect(cls, address: str) -> HalfSender:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PREFACE + _frame(SETTINGS, 0, 0, b""))
        return cls(reader, writer)

    async def begin(self, path: str, announced_bytes: int, sent_bytes: int) -> None:
        """Open a call and send the first bytes of a message, as far as the connection's window allows."""
        self._writer.write(_frame(HEADERS, END_HEADERS, self._next_stream, _headers(path)))
        data = struct.pack(">BI", 0, announced_bytes) + bytes(sent_bytes)
        for start in range(0, len(data), CHUNK_BYTES):
            self._writer.write(_frame(DATA, 0, self._next_stream, data[start : start + CHUNK_BYTES]))
        self._next_stream += 2
        await self._writer.drain()

    async def _drain(self) -> None:
        """Take whatever the server says, so that it is never held back."""
        while await self._reader.read(65_536):
            pass

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self._reading.done()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()
