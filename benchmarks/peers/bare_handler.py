"""The least that a gRPC server in Python can do for an engine.

    python -m benchmarks.peers.bare_handler MODEL.onnx PORT aio|threads

`ModelInfer` at bytes level: the one raw input is looked at where it lies in the message, the engine runs inside the
handler, its output is the answer. No checks, no queue, no thread of the engine's own, no statistics, no second client.

    aio       a `grpc.aio` handler; while the engine computes, nobody else is heard
    threads   a `grpc.server` handler, on a thread of its pool
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import numpy as np

from benchmarks.peers.peer_session import open_session
from protos.inference import service_pb2 as pb
from protos.inference import wire
from server.host.allocator import keep_large_buffers

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SHAPE = (1, 3, 224, 224)
OPTIONS = [("grpc.max_receive_message_length", -1)]
Infer = Callable[[bytes], bytes]


def infer_with(path: str) -> Infer:
    """Answers a `ModelInferRequest` on the wire with a `ModelInferResponse`."""
    session = open_session(path)

    def infer(message: bytes) -> bytes:
        _, (raw,) = wire.split(message)
        (logits,) = session.run(["logits"], {"image": np.frombuffer(raw, np.float32).reshape(SHAPE)})
        head = pb.ModelInferResponse(model_name="bare", model_version="1")
        head.outputs.add(name="logits", datatype="FP32", shape=logits.shape)
        return wire.join(head.SerializeToString(), (logits.tobytes(),))

    return infer


async def serve_aio(infer: Infer, port: str) -> None:
    """Serve from the event loop, until the process is ended."""

    async def handle(message: bytes, _: object) -> bytes:
        return infer(message)

    async def ready(_: bytes, __: object) -> bytes:
        return _READY

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_handlers(handle, ready),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def serve_threads(infer: Infer, port: str) -> None:
    """Serve from a pool of threads, until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(2), options=OPTIONS)
    server.add_generic_rpc_handlers((_handlers(lambda message, _: infer(message), lambda _, __: _READY),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


_READY = pb.ModelReadyResponse(ready=True).SerializeToString()


def _handlers(infer: Any, ready: Any) -> grpc.GenericRpcHandler[Any, Any]:  # noqa: ANN401 - either kind of handler
    calls = {"ModelInfer": infer, "ModelReady": ready}
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()}
    )


if __name__ == "__main__":
    model, number, kind = sys.argv[1:]
    keep_large_buffers(64 << 20)
    if kind == "aio":
        asyncio.run(serve_aio(infer_with(model), number))
    else:
        serve_threads(infer_with(model), number)
