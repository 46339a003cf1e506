"""What the client raises.

```text
ClientError
├── ServerUnreachable    nobody answers at the address
├── ConnectionLost       the server went away while a stream was open, or while it was watched
├── Rejected             the server understood and said no; `code` has the gRPC status
├── ProtocolViolation    what came back is not what the proto files say
├── StreamClosed         a frame was given to a stream that is closed
├── StreamStalled        no credit came for too long, or results were left unread
├── FrameInvalid         a frame or camera that the server would refuse; nothing was sent
└── SourceError          a folder, video, device or pipeline cannot be opened or read
```

Every message says what happened, the values seen, and what to do next.
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of everything this package raises on purpose."""


class ServerUnreachable(ClientError):
    """Nobody answers at the address."""


class ConnectionLost(ClientError):
    """The server went away while a stream was open, or while its results or state were followed.

    Attributes:
        undelivered: Frames that were sent and got no answer.
    """

    def __init__(self, message: str, undelivered: int = 0) -> None:
        super().__init__(message)
        self.undelivered = undelivered


class Rejected(ClientError):
    """The server understood and said no.

    Attributes:
        code: Name of the gRPC status, for example `INVALID_ARGUMENT`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ProtocolViolation(ClientError):
    """What came back is not what the proto files say."""


class StreamClosed(ClientError):
    """A frame was given to a stream that is closed."""


class StreamStalled(ClientError):
    """No credit came for too long, or results were left unread."""


class FrameInvalid(ClientError, ValueError):
    """A frame or camera that the server would refuse; nothing was sent."""


class SourceError(ClientError):
    """A folder, video, device or pipeline cannot be opened or read."""
