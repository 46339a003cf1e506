"""The least that a gRPC stream can do for an engine: `python -m benchmarks.bare_stream BUNDLE`.

A `grpc.aio` handler at bytes level. It copies each message into the engine's input, runs the engine inside the handler,
and answers with the outputs' bytes. Everything a camera server is for is left out.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio
import numpy as np

from engine.allocate import allocate
from engine.bundle import Bundle
from engine.opening import open_runtime
from engine.slots import RegionTable


async def serve(path: str) -> None:
    """Serve a bundle that takes camera frames, until the process is ended."""
    bundle, regions = Bundle.open(path), RegionTable()
    assert bundle.manifest.preprocessing is not None  # noqa: S101 - the caller has checked
    runtime = open_runtime(bundle, "cpu", regions, threads=1)
    slots = allocate(runtime.describe(), regions, 1)
    image, batch = slots.view(bundle.manifest.preprocessing.input), slots.batch(1)
    outputs = [slots.view(name) for name in slots.outputs]

    async def stream(_: object, context: Any) -> None:  # noqa: ANN401 - the stubs know only typed calls
        while isinstance(message := await context.read(), bytes):
            image[0] = np.frombuffer(message, np.uint8).reshape(image.shape[1:])
            runtime.run(batch)
            await context.write(b"".join(output.tobytes() for output in outputs))

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handlers = {"Stream": grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving the bare stream at 127.0.0.1:{port}, metrics at none", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
