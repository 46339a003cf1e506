"""Everything the server refuses, and the one table from errors to gRPC status codes."""

from __future__ import annotations

import logging

import grpc
from google.protobuf.message import DecodeError

log = logging.getLogger("monocoque.service")


class ServerError(Exception):
    """Anything that the server refuses to do, with what to do about it.

    ::

        ServerError
        ├── StartFailed        the server cannot start: configuration, port, engine
        └── StreamEnded        a call ends; the table below says with which code
            ├── NeverOpened        the first message did not come in time
            ├── Superseded         another stream has taken over one of its cameras
            ├── RequestInvalid     a message that makes no sense, whenever it is sent
            ├── OutOfOrder         a message that makes no sense now, or with this engine
            ├── LimitReached       streams, cameras, watchers or memory
            ├── NotReading         the client does not read its results
            ├── EngineNotFound     no engine of that name and version
            ├── EngineNotReady     it is loading, or could not be loaded
            ├── RequestLate        its time ran out while it waited for its turn
            ├── InferenceFailed    the engine failed to compute a request
            ├── SwapRefused        an engine cannot take another's place
            ├── LoadFailed         a bundle cannot be loaded
            ├── RegionNotFound     no shared memory of that name, for whoever asks
            ├── NameTaken          a name that is in use already
            ├── NotSupported       a part of a protocol that this server has not
            └── Draining           the server is shutting down

    Args:
        message: What happened, with the values seen.
        remedy: What to do next.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}"


class StartFailed(ServerError):
    """The server cannot start."""


class StreamEnded(ServerError):
    """A call ends here."""


class NeverOpened(StreamEnded):
    """The first message did not come in time."""


class Superseded(StreamEnded):
    """Another stream has taken over one of its cameras."""


class RequestInvalid(StreamEnded):
    """A message makes no sense, whenever it is sent."""


class OutOfOrder(StreamEnded):
    """A message makes no sense now, or with the engine that is served."""


class LimitReached(StreamEnded):
    """No more streams, cameras, watchers or memory."""


class NotReading(StreamEnded):
    """The client does not read its results."""


class EngineNotFound(StreamEnded):
    """No engine of that name and version is served."""


class EngineNotReady(StreamEnded):
    """The engine is loading, or could not be loaded."""


class RequestLate(StreamEnded):
    """A request's time ran out while it waited for its turn."""


class InferenceFailed(StreamEnded):
    """The engine failed to compute a request."""


class SwapRefused(StreamEnded):
    """An engine cannot take another's place."""


class LoadFailed(StreamEnded):
    """A bundle cannot be loaded."""


class RegionNotFound(StreamEnded):
    """Nobody registered shared memory of that name, or somebody else did."""


class NameTaken(StreamEnded):
    """A name is in use already."""


class NotSupported(StreamEnded):
    """A part of a protocol that this server has not."""


class Draining(StreamEnded):
    """The server is shutting down."""


STATUS_CODES: dict[type[Exception], grpc.StatusCode] = {
    NeverOpened: grpc.StatusCode.DEADLINE_EXCEEDED,
    Superseded: grpc.StatusCode.ABORTED,
    RequestInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    OutOfOrder: grpc.StatusCode.FAILED_PRECONDITION,
    LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotReading: grpc.StatusCode.RESOURCE_EXHAUSTED,
    EngineNotFound: grpc.StatusCode.NOT_FOUND,
    EngineNotReady: grpc.StatusCode.UNAVAILABLE,
    RequestLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    InferenceFailed: grpc.StatusCode.INTERNAL,
    SwapRefused: grpc.StatusCode.FAILED_PRECONDITION,
    LoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    RegionNotFound: grpc.StatusCode.NOT_FOUND,
    NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    NotSupported: grpc.StatusCode.UNIMPLEMENTED,
    Draining: grpc.StatusCode.UNAVAILABLE,
}
"""Anything else is a bug of ours: INTERNAL, with the traceback in the log and not in the answer."""


def status_code(error: Exception) -> grpc.StatusCode:
    """The code that a call ends with."""
    return next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), grpc.StatusCode.INTERNAL)


def ending(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and details that a call ends with; a bug of ours is told to the log only."""
    if isinstance(error, StreamEnded):
        return status_code(error), f"{error.message} → {error.remedy}"
    if isinstance(error, DecodeError):
        return status_code(error), f"malformed message: {error}"
    log.error("a call failed", exc_info=error)
    return status_code(error), "the server failed; its log says why"
