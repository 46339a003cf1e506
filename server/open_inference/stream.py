"""A stream of requests: computed in order, each answered, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from protos.inference import wire
from protos.inference.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from server.errors import ending
from server.open_inference.caller import Caller
from server.open_inference.inference import Inference

REQUESTS_AHEAD = 4
"""Requests of a stream that are read before the first of them is answered: enough that the engine never waits for the
network, few enough that a stream cannot hold many tensors."""

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined] # missing from the stubs


class RequestStream:
    """One `ModelStreamInfer` call.

    Args:
        inference: Computes requests.
        context: The call.
        caller: Who makes it.
    """

    def __init__(self, inference: Inference, context: Any, caller: Caller) -> None:  # noqa: ANN401 - as in service.py
        self._inference = inference
        self._context = context
        self._caller = caller
        self._room = asyncio.Semaphore(REQUESTS_AHEAD)
        self._answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._pending: set[asyncio.Task[bytes]] = set()
        self._reading: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer everything that comes, until the client is done or `drain` is called."""
        self._reading = asyncio.ensure_future(self._read())
        try:
            while (answer := await self._answers.get()) is not None:
                await self._context.write(await answer)
                self._room.release()
        finally:
            for task in (self._reading, *self._pending):
                task.cancel()
            await asyncio.gather(self._reading, *self._pending, return_exceptions=True)

    def drain(self) -> None:
        """Read nothing more; `serve` ends once everything is answered."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                message = await self._context.read()
                if message is EOF:
                    return
                task = asyncio.ensure_future(self._answer(message))
                del message  # a request must not be kept until the next one comes
                self._pending.add(task)
                task.add_done_callback(self._pending.discard)
                self._answers.put_nowait(task)
        finally:
            self._answers.put_nowait(None)

    async def _answer(self, message: bytes) -> bytes:
        """An answer, or what was wrong; either is an answer of the stream, which goes on."""
        try:
            return await self._inference.infer(message, self._caller, in_stream=True)
        except Exception as error:  # a bug of ours must cost this request and no more, too
            _, details = ending(error)
        try:
            request_id = ModelInferRequest.FromString(wire.split(message)[0]).id
        except DecodeError:
            request_id = ""
        return ModelStreamInferResponse(
            error_message=details, infer_response=ModelInferResponse(id=request_id)
        ).SerializeToString()
