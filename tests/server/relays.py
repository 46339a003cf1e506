"""Networks that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def stalling(address: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A relay that, once told, forwards nothing any more and closes nothing either: a cable pulled."""
    host, _, port = address.partition(":")
    pulled = asyncio.Event()
    open_ends: list[asyncio.StreamWriter] = []
    relaying: list[asyncio.Task[None]] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relaying.append(task)
        from_server, to_server = await asyncio.open_connection(host, int(port))
        open_ends.extend((writer, to_server))

        async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    if not pulled.is_set():
                        sink.write(data)

        await asyncio.gather(forward(reader, to_server), forward(from_server, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", pulled
        for end in open_ends:
            end.transport.abort()
        if relaying:
            await asyncio.wait(relaying)
