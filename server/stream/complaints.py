"""Why frames went wrong, in the log: their results have the reasons, but an operator has the log alone."""

from __future__ import annotations

import logging

from protos.monocoque.v1.result_pb2 import Result

log = logging.getLogger("monocoque.stream")

WRONG = frozenset({"refused", "torn", "failed"})
"""Statuses that are told. The others are a server's everyday life."""
INTERVAL_NS = 10_000_000_000
"""Between two lines of one camera, however many frames go wrong."""


class Complaints:
    """What is said of one stream's frames.

    Args:
        stream_id: The stream.
    """

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id
        self._told_ns: dict[str, int] = {}
        self._untold: dict[str, int] = {}
        self._misdated: set[str] = set()

    def add_misdated(self, camera_id: str, sequence: int, late_ns: int) -> bool:
        """A frame's capture time cannot be right; its camera's first is told, whatever the others are.

        Args:
            camera_id: One of the stream's; empty for one that it did not open.
            sequence: The frame's.
            late_ns: Its capture time less its arrival.

        Returns:
            Whether it is its camera's first.
        """
        if camera_id in self._misdated:
            return False
        self._misdated.add(camera_id)
        log.info(
            "%s: frame %d of %s was captured %.3f s %s it came, by the clock that the stream declared; its age counts "
            "from receipt → send the times of that clock, or declare another",
            self._stream_id,
            sequence,
            camera_id or "a camera that it did not open",
            abs(late_ns) / 1e9,
            "after" if late_ns > 0 else "before",
        )
        return True

    def add(self, camera_id: str, status: str, result: bytes, now_ns: int) -> None:
        """A frame went wrong; it is told with its reason, or counted where its camera had a line just now.

        Args:
            camera_id: One of the stream's; empty for one that it did not open.
            status: One of `WRONG`.
            result: Its `Result` on the wire.
            now_ns: Monotonic time.
        """
        told_ns = self._told_ns.get(camera_id)
        if told_ns is not None and now_ns - told_ns < INTERVAL_NS:
            self._untold[camera_id] = self._untold.get(camera_id, 0) + 1
            return
        self._told_ns[camera_id] = now_ns
        others = self._untold.pop(camera_id, 0)
        more = f" ({others} more went wrong since the last line)" if others else ""
        answer = Result.FromString(result)
        log.info(
            "%s: frame %d of %s was %s: %s%s",
            self._stream_id,
            answer.sequence,
            camera_id or "a camera that it did not open",
            status,
            answer.reason,
            more,
        )
