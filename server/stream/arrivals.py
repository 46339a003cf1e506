"""From a header and its pixels to a frame: when it was captured and sent, by our clock, and until when it counts."""

from __future__ import annotations

from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1 import stream_pb2 as pb
from server.frames import Frame, OpenCamera
from server.observe.ledger import Ledger
from server.observe.metrics import Metrics
from server.stream.clock import ClientClock, HostClock, StepWatch
from server.stream.complaints import Complaints


class Arrivals:
    """The frames of one stream as they come.

    Args:
        clock: What the stream's times mean.
        host: Our clocks.
        max_age_ns: Of frames that name none of their own; 0: they may be of any age.
        metrics: Where clocks that are set are counted.
        complaints: Where cameras with impossible capture times are told.
    """

    def __init__(
        self, clock: ClientClock, host: HostClock, max_age_ns: int, metrics: Metrics, complaints: Complaints
    ) -> None:
        self._clock = clock
        self._host = host
        self._max_age_ns = max_age_ns
        self._metrics = metrics
        self._complaints = complaints
        self._steps = StepWatch(clock, host)

    def frame(self, camera: OpenCamera, header: camera_pb2.FrameHeader, pixels: memoryview, received: int) -> Frame:
        """A frame that has just come.

        Args:
            camera: Its camera.
            header: What the client says of it.
            pixels: Its bytes.
            received: When it came, in nanoseconds of the monotonic clock.
        """
        clock, host = self._clock, self._host
        for whose in self._steps.steps(header.client_send_time_ns, received):
            self._metrics.clock_steps(whose).inc()
        sent = clock.to_monotonic(header.client_send_time_ns, received, host)
        captured = clock.to_monotonic(header.capture_time_ns, received, host)
        if captured is None and header.capture_time_ns and clock.kind != pb.CLOCK_KIND_UNKNOWN:
            late_ns = header.capture_time_ns - clock.offset_ns(host) - received
            if self._complaints.add_misdated(camera.key.camera_id, header.sequence, late_ns):
                self._metrics.clock_steps("capture").inc()
        max_age_ns = header.max_age_ns or self._max_age_ns
        since = received if captured is None else captured
        return Frame(
            camera=camera,
            header=header,
            pixels=pixels,
            ledger=Ledger(received=received, sent=sent, uncertainty_ns=clock.error_ns),
            captured=captured,
            uncertainty_ns=clock.error_ns,
            deadline_ns=since + max_age_ns if max_age_ns else None,
        )
