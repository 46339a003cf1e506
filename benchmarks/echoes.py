"""Bare echoes over gRPC, for `benchmarks.messages`: they take bytes and answer with 200.

python -m benchmarks.echoes aio|threads
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from benchmarks.engineless import STREAMS
from server.host.allocator import keep_large_buffers

ANSWER = bytes(200)


async def aio_echo() -> None:
    """A `grpc.aio` handler that reads and answers."""

    async def stream(_: object, context: Any) -> None:  # noqa: ANN401 - the stubs know only typed calls
        while isinstance(await context.read(), bytes):
            await context.write(ANSWER)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(stream),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _say(f"127.0.0.1:{port}")
    await server.wait_for_termination()


def threaded_echo() -> None:
    """The same with a thread per stream."""

    def stream(messages: Iterator[bytes], _: object) -> Iterator[bytes]:
        return (ANSWER for _ in messages)

    server = grpc.server(ThreadPoolExecutor(2 * STREAMS))
    server.add_generic_rpc_handlers((_handlers(stream),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _say(f"127.0.0.1:{port}")
    threading.Event().wait()


def _handlers(stream: Any) -> grpc.GenericRpcHandler[Any, Any]:  # noqa: ANN401 - either kind of handler
    return grpc.method_handlers_generic_handler(
        "benchmark.Echo", {"Stream": grpc.stream_stream_rpc_method_handler(stream)}
    )


def _say(address: str) -> None:
    print(f"serving nothing at {address}, metrics at none", flush=True)


if __name__ == "__main__":
    keep_large_buffers(64 << 20)
    if sys.argv[1] == "aio":
        asyncio.run(aio_echo())
    else:
        threaded_echo()
