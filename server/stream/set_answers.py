"""The frames of a set are answered together, followed by the set itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from protos.monocoque.v1 import camera_pb2, result_pb2
from protos.monocoque.v1.stream_pb2 import StreamFramesResponse
from server.frames import Answer
from server.schedule.sets import FrameSet
from server.stream.answers import STATUS_NUMBERS
from server.stream.birdseye import View, merge, place

log = logging.getLogger("monocoque.sets")

CAUSES = {
    "complete": result_pb2.SET_CAUSE_COMPLETE,
    "deadline": result_pb2.SET_CAUSE_DEADLINE,
    "next": result_pb2.SET_CAUSE_NEXT,
    "ended": result_pb2.SET_CAUSE_ENDED,
}


class SetAnswers:
    """Answers that wait for the rest of their set. On the event loop; objects are merged on another thread.

    Args:
        cameras: The cameras of the stream, in the order of `Open`.
        labels: Labels of detections by index.
        send: Told of the answers of a set, the set's number (0: it was not computed), and its message.
    """

    def __init__(
        self,
        cameras: Mapping[str, camera_pb2.Camera],
        labels: Sequence[str],
        send: Callable[[Sequence[Answer], int, bytes | None], None],
    ) -> None:
        self._order = list(cameras)
        self._views = {name: View.of(camera) for name, camera in cameras.items()}
        self._labels = labels
        self._send = send
        self._pending: dict[FrameSet, list[Answer]] = {}
        self._number = 0
        self._last: asyncio.Task[None] | None = None

    def add(self, frame_set: FrameSet, answer: Answer) -> None:
        """Add the answer of one frame of a set; the last one sends all."""
        answers = self._pending.setdefault(frame_set, [])
        answers.append(answer)
        if len(answers) < frame_set.frames:
            return
        del self._pending[frame_set]
        answers.sort(key=lambda one: self._order.index(one.frame.camera.key.camera_id))
        if all(one.status in ("stale", "refused") for one in answers):  # replaced or refused before its turn
            self._send(answers, 0, None)
            return
        self._number += 1
        self._last = asyncio.ensure_future(self._finish(self._last, frame_set, answers, self._number))

    async def _finish(
        self, before: asyncio.Task[None] | None, frame_set: FrameSet, answers: Sequence[Answer], number: int
    ) -> None:
        """Send a set after the one before it."""
        message = self._describe(frame_set, answers, number)
        seen = [one for one in answers if one.found is not None]
        try:
            if seen:
                message.objects.extend(await asyncio.to_thread(self._objects, seen))
        except Exception:  # a bug of ours must cost the objects and no more
            log.exception("the objects of a set cannot be merged")
            message.unplaced[:] = [one.frame.header.camera_id for one in seen]
        if before is not None:
            await asyncio.wait([before])  # however that went
        self._send(answers, number, StreamFramesResponse(set=message).SerializeToString())

    def _describe(self, frame_set: FrameSet, answers: Sequence[Answer], number: int) -> result_pb2.SurroundSet:
        present = {one.frame.camera.key.camera_id for one in answers}
        seen = [one for one in answers if one.found is not None]
        return result_pb2.SurroundSet(
            number=number,
            frames=[
                result_pb2.SetFrame(
                    camera_id=one.frame.header.camera_id,
                    sequence=one.frame.header.sequence,
                    offset_ns=one.frame.taken_ns - frame_set.first_ns,
                    status=STATUS_NUMBERS[one.status],
                )
                for one in answers
            ],
            missing=[name for name in self._order if name not in present],
            spread_ns=frame_set.spread_ns,
            cause=CAUSES[frame_set.cause],
            gathered_ns=frame_set.gathered_ns,
            unplaced=[one.frame.header.camera_id for one in seen if not self._can_place(one)],
        )

    def _can_place(self, answer: Answer) -> bool:
        known = self._views[answer.frame.camera.key.camera_id] is not None
        return known and answer.found is not None and answer.found.distances is not None

    def _objects(self, answers: Sequence[Answer]) -> list[result_pb2.VehicleObject]:
        placed = []
        for answer in answers:
            view = self._views[answer.frame.camera.key.camera_id]
            if view is not None and answer.found is not None:
                placed += place(answer.found, view)
        return [item.message(self._labels) for item in merge(placed)]
