"""Stream camera frames to a Monocoque server, and get results with their own latency ledger.

```python
import client

cameras = [client.Camera("front", width=640, height=384, encoding="jpeg")]
with client.connect_sync() as server, server.stream(cameras) as stream:
    stream.submit(client.Frame("front", client.encode(image_rgb, "jpeg")))
    result = next(stream)
    print(result.detections, result.ledger.stages())
```

`client.connect` is the same with `async`. `python -m client --help` is the same from a shell.
"""

from client.clock import Offset, StreamClock
from client.connection import Connection, Watched, connect
from client.encode import encode
from client.encode_video import VideoEncoder
from client.engine import Engine, Opened, TensorSpec
from client.errors import (
    ClientError,
    ConnectionLost,
    FrameInvalid,
    ProtocolViolation,
    Rejected,
    ServerUnreachable,
    SourceError,
    StreamClosed,
    StreamStalled,
)
from client.frames import Camera, Encoding, Frame, Intrinsics, Mounting
from client.outbox import Counts
from client.results import Age, Detection, Ledger, Memory, Result, Status
from client.sets import SetFrame, SurroundSet, VehicleObject
from client.state import EngineStatus, ServerState
from client.stream import Policy, Stream
from client.sync import SyncConnection, SyncStream, connect_sync

__all__ = [
    "Age",
    "Camera",
    "ClientError",
    "Connection",
    "ConnectionLost",
    "Counts",
    "Detection",
    "Encoding",
    "Engine",
    "EngineStatus",
    "Frame",
    "FrameInvalid",
    "Intrinsics",
    "Ledger",
    "Memory",
    "Mounting",
    "Offset",
    "Opened",
    "Policy",
    "ProtocolViolation",
    "Rejected",
    "Result",
    "ServerState",
    "ServerUnreachable",
    "SetFrame",
    "SourceError",
    "Status",
    "Stream",
    "StreamClock",
    "StreamClosed",
    "StreamStalled",
    "SurroundSet",
    "SyncConnection",
    "SyncStream",
    "TensorSpec",
    "VehicleObject",
    "VideoEncoder",
    "Watched",
    "connect",
    "connect_sync",
    "encode",
]
