"""How a stream begins: `Open`, and the server's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
import grpc.aio

from client.engine import Opened, opened_from_proto
from client.errors import ClientError, ConnectionLost, ProtocolViolation, ServerUnreachable
from client.frames import Camera
from client.limits import check_size
from client.rpc import FrameCall, error_of, lost, parse_response
from protos.monocoque.v1 import stream_pb2


async def open_frames(
    call: FrameCall, address: str, request: stream_pb2.Open, cameras: Iterable[Camera]
) -> tuple[Opened, stream_pb2.SharedMemory]:
    """Open a stream of frames.

    Args:
        call: Just made.
        address: The server's, for messages.
        request: What to open.
        cameras: Those of the request; checked against the server's limits.

    Returns:
        What was granted, and the shared memory, if that was asked for.

    Raises:
        ClientError: The server refuses, is gone, or is no such server.
    """
    try:
        await call.write(stream_pb2.StreamFramesRequest(open=request).SerializeToString())
        answer = await call.read()
        if answer is None:
            code, _ = await call.status()
            if code is grpc.StatusCode.OK:
                raise ProtocolViolation(f"the server at {address} ended the stream instead of opening it")
            raise await refusal(call, address)
        response = parse_response(answer)
        if not response.HasField("opened"):
            kind = response.WhichOneof("message") or "nothing"
            raise ProtocolViolation(f"the server at {address} answered Open with {kind}")
        opened = opened_from_proto(response.opened)
        for camera in cameras:
            check_size(camera, opened)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        raise await refusal(call, address) from None
    except BaseException:
        call.cancel()
        raise
    return opened, response.opened.shared_memory


async def refusal(call: FrameCall, address: str) -> ClientError:
    """Why a call failed."""
    return error_of(*await call.status(), address)


async def loss(call: FrameCall, address: str, undelivered: int) -> ClientError:
    """Why an open stream ended before the client wanted it to."""
    code, details = await call.status()
    if code is grpc.StatusCode.OK:
        return ConnectionLost(f"the server at {address} ended the stream", undelivered)
    error = error_of(code, details, address)
    if not isinstance(error, ServerUnreachable):
        return error
    return ConnectionLost(
        f"lost the server at {address} with {undelivered} frames unanswered: {lost(details)}",
        undelivered,
    )
