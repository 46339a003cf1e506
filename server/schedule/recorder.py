"""A live scheduler's events, one JSON line each, so that a run can be played through the state machine again.

Times are nanoseconds of the monotonic clock. A frame is named by a number, in the order in which frames were offered.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TextIO

from server.errors import StartFailed
from server.schedule.batching import LatencyCurve
from server.schedule.ranking import Item, Key
from server.schedule.scheduler import Scheduler, Selection

BUFFER_BYTES = 1 << 20


class RecordingScheduler(Scheduler[Key, Item], Generic[Key, Item]):
    """A scheduler that writes down what it was told and what it decided.

    Args:
        file: Gets the lines; closed by whoever opened it.
    """

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file
        self._numbers: dict[int, int] = {}
        self._count = itertools.count(1)

    def add_camera(self, key: Key, **options: Any) -> None:  # noqa: ANN401 - passed on
        """See `Scheduler.add_camera`."""
        super().add_camera(key, **options)
        self._write("add_camera", key=str(key), options=options)

    def add_set(self, key: Key, cameras: Sequence[Key], **options: Any) -> None:  # noqa: ANN401
        """See `Scheduler.add_set`."""
        super().add_set(key, cameras, **options)
        self._write("add_set", key=str(key), cameras=[str(camera) for camera in cameras], options=options)

    def remove_camera(self, key: Key) -> list[Item]:
        """See `Scheduler.remove_camera`."""
        gone = super().remove_camera(key)
        self._write("remove_camera", key=str(key), gone=self._forget(gone))
        return gone

    def offer(self, key: Key, item: Item, now_ns: int) -> list[Item]:
        """See `Scheduler.offer`."""
        number = self._numbers[id(item)] = next(self._count)
        replaced = super().offer(key, item, now_ns)
        self._write(
            "offer",
            key=str(key),
            item=number,
            deadline_ns=item.deadline_ns,
            taken_ns=item.taken_ns,
            now_ns=now_ns,
            replaced=self._forget(replaced),
        )
        return replaced

    def end_set(self, key: Key, now_ns: int) -> list[Item]:
        """See `Scheduler.end_set`."""
        replaced = super().end_set(key, now_ns)
        self._write("end_set", key=str(key), now_ns=now_ns, replaced=self._forget(replaced))
        return replaced

    def take(
        self, now_ns: int, max_batch: int, curve: LatencyCurve | None = None, worker: int = 0
    ) -> Selection[Key, Item]:
        """See `Scheduler.take`."""
        selection = super().take(now_ns, max_batch, curve, worker)
        self._write(
            "take",
            now_ns=now_ns,
            max_batch=max_batch,
            curve=None if curve is None else {str(size): ns for size, ns in curve.latency_ns.items()},
            worker=worker,
            batch=self._forget(selection.batch),
            late=self._forget(selection.late),
            stale=self._forget(selection.stale),
            keys=[str(key) for key in selection.keys],
        )
        return selection

    def finish(self, keys: Iterable[Key], now_ns: int) -> None:
        """See `Scheduler.finish`."""
        keys = list(keys)
        super().finish(keys, now_ns)
        self._write("finish", keys=[str(key) for key in keys], now_ns=now_ns)

    def _forget(self, items: Sequence[Item]) -> list[int]:
        """Numbers of frames that are gone from here on."""
        return [self._numbers.pop(id(item)) for item in items]

    def _write(self, event: str, **values: object) -> None:
        self._file.write(json.dumps({"event": event, **values}) + "\n")


def open_record(path: Path) -> TextIO:
    """A file for events.

    Raises:
        StartFailed: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", buffering=BUFFER_BYTES)
    except OSError as error:
        raise StartFailed(
            f"cannot write {path}: {error.strerror}", remedy="choose another --record-scheduler"
        ) from None
