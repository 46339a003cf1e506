"""What has come back and waits to be read, what is still on its way, and what is known of the server's clock.

Pure bookkeeping, without a network or a clock of its own.
"""

from __future__ import annotations

from collections import deque

from client.clock import Exchange, Offset, OffsetFilter
from client.errors import ProtocolViolation
from client.results import Result, Sent, result_from_proto
from protos.monocoque.v1 import result_pb2, stream_pb2

MAX_UNREAD = 10_000
"""Results that wait to be read. Beyond it a live stream forgets the oldest, and a replay stops sending."""


class Inbox:
    """Frames in flight and results to read.

    Args:
        forgets: Whether the oldest result is forgotten where too many wait: in a live stream.

    Attributes:
        same_clock: Whether the server's clock is the client's.
        forgotten: Results that nobody read in time.
    """

    def __init__(self, forgets: bool) -> None:
        self.same_clock = False
        self.forgotten = 0
        self._forgets = forgets
        self._in_flight: dict[tuple[str, int], Sent] = {}
        self._unread: deque[Result] = deque()
        self._offsets = OffsetFilter()

    @property
    def in_flight(self) -> int:
        """Frames sent that have no answer."""
        return len(self._in_flight)

    @property
    def unread(self) -> int:
        """Results that wait to be read."""
        return len(self._unread)

    @property
    def clock_steps(self) -> int:
        """How often one of the clocks was seen to step."""
        return self._offsets.steps

    def expect(self, camera_id: str, sequence: int, sent: Sent) -> None:
        """Remember a frame that is about to be sent."""
        self._in_flight[camera_id, sequence] = sent

    def take_result(self, message: result_pb2.Result, now_ns: int) -> None:
        """Take an answer in.

        Raises:
            ProtocolViolation: It answers nothing that is in flight.
        """
        sent = self._in_flight.pop((message.camera_id, message.sequence), None)
        if sent is None:
            raise ProtocolViolation(
                f"the server answered frame {message.sequence} of camera {message.camera_id!r}, which is not in flight"
            )
        if self._forgets and len(self._unread) >= MAX_UNREAD:
            self._unread.popleft()
            self.forgotten += 1
        self._unread.append(result_from_proto(message, sent, now_ns, self.offset(now_ns)))

    def take_time(self, reply: stream_pb2.ClockReply, now_ns: int) -> None:
        """Take in what the server said about its clock."""
        self._offsets.add(
            Exchange(reply.client_time_ns, reply.server_receive_time_ns, reply.server_send_time_ns, now_ns)
        )

    def offset(self, now_ns: int) -> Offset | None:
        """Server's monotonic clock minus the client's; None where it is not known (yet)."""
        return Offset(0, 0) if self.same_clock else self._offsets.estimate(now_ns)

    def read(self) -> Result:
        """The result that came first; there is one."""
        return self._unread.popleft()
