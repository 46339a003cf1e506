"""The service's methods at bytes level, the channel they go over, and what its failures mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from client.errors import ClientError, ConnectionLost, ProtocolViolation, Rejected, ServerUnreachable
from protos.monocoque.v1 import stream_pb2

DEFAULT_ADDRESS = "127.0.0.1:8001"
"""Where `python -m server` listens unless told otherwise."""

SERVICE = "/monocoque.v1.CameraStreamService"
STREAM_FRAMES = f"{SERVICE}/StreamFrames"
WATCH_RESULTS = f"{SERVICE}/WatchResults"
WATCH_STATE = f"{SERVICE}/WatchState"
GET_ENGINE = f"{SERVICE}/GetEngine"

KEEPALIVE_MS = 10_000
"""A server that vanished without closing, behind a pulled cable, is noticed within twice this."""

SERVERS_ADVICE = " → "
"""In what our server says, and not gRPC on the way to it."""

_LOCAL_HOSTS = ("127.", "localhost", "[::1]", "unix:")


def channel_options(address: str) -> list[tuple[str, int]]:
    """Options of a channel: no message limit (the server's holds), pings, and no proxy on the way to this host."""
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if address.startswith(_LOCAL_HOSTS):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def open_channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel; it connects at its first call."""
    options: Sequence[tuple[str, Any]] = channel_options(address)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def parse_response(message: bytes) -> stream_pb2.StreamFramesResponse:
    """One message of a stream.

    Raises:
        ProtocolViolation: It is none.
    """
    try:
        return stream_pb2.StreamFramesResponse.FromString(message)
    except DecodeError as error:
        raise ProtocolViolation(
            f"a message of {len(message)} bytes from the server is no StreamFramesResponse ({error}); "
            "is something else listening at this address?"
        ) from error


def lost(details: str) -> str:
    """What ended a connection, and what to do next: the server's own advice, or ours where gRPC speaks."""
    return details if SERVERS_ADVICE in details else f"{details}\n  → is it still running? its log says why it stopped"


BROKEN_OFF = "Internal error from Core"
"""What grpc.aio itself says, as INTERNAL, of a call that broke off before it had heard why."""


def error_of(code: grpc.StatusCode, details: str, address: str, was_there: bool = False) -> ClientError:
    """What a call's failure means, and what to do next.

    Args:
        code: The call's status.
        details: Its details.
        address: The server's, for the message.
        was_there: Whether the server had answered before.
    """
    details = details or "no details"
    if code is grpc.StatusCode.UNAVAILABLE or details == BROKEN_OFF:
        if "Connection refused" in details or "No such file" in details:
            return ServerUnreachable(
                f"nobody listens at {address}: is the server running?\n"
                f"  → python -m server BUNDLE\n"
                f"  → or name its address: --server HOST:PORT"
            )
        if SERVERS_ADVICE in details:
            return ServerUnreachable(f"{address} does not take this now: {details}")
        if was_there:
            return ConnectionLost(f"lost the server at {address}: {lost(details)}")
        return ServerUnreachable(
            f"no connection to {address}: {details}\n  → is this the address of `python -m server`, and its gRPC port?"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerUnreachable(
            f"{address} did not answer in time: {details}\n  → is the server overloaded or starting?"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ProtocolViolation(
            f"the gRPC server at {address} does not offer monocoque.v1.CameraStreamService: {details}\n"
            "  → is this the port of `python -m server` (8001 by default)?"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return Rejected(
            f"{address} takes no message that large: {details}\n"
            "  → start it with a larger --max-frame WIDTHxHEIGHT, or send smaller frames",
            code.name,
        )
    if code is grpc.StatusCode.INTERNAL and "deserializ" in details.lower():
        return ProtocolViolation(f"{address} sent a message that is not what the proto files say: {details}")
    return Rejected(f"the server at {address} said {code.name}: {details}", code.name)


class FrameCall:
    """The call `StreamFrames`, in bytes.

    Args:
        channel: Where to make it.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        untyped: Any = channel  # the stubs require serializers, and a request iterator
        self._call: Any = untyped.stream_stream(STREAM_FRAMES)()

    async def write(self, message: bytes) -> None:
        """Hand over one message; returns when the transport has taken it."""
        await self._call.write(message)

    async def read(self) -> bytes | None:
        """The next message; None: the server has ended the stream."""
        message = await self._call.read()
        return message if isinstance(message, bytes) else None

    async def done_writing(self) -> None:
        """Close this side."""
        await self._call.done_writing()

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the call ended: status and details."""
        return await self._call.code(), await self._call.details() or ""

    async def ended(self) -> None:
        """End the call now, and wait until gRPC has let go of it: else it disturbs a loop that is closed."""
        self._call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._call.code()

    def cancel(self) -> None:
        """End the call now."""
        self._call.cancel()
