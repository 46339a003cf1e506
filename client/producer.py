"""Frames made in a process of their own.

Rendering, reading and compressing take milliseconds of CPU. In this process they would delay the event loop, and
what the ledger calls `returned` would measure them.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

from client.clock import ClockName, StreamClock
from client.encode import encode
from client.errors import ClientError, SourceError
from client.frames import Camera, Encoding, Image
from client.sources import Source, open_source

DEFAULT_FPS = 10.0
"""Rate of sources that have none of their own, such as folders and renderers."""


@dataclass(frozen=True)
class Recipe:
    """What to produce.

    Attributes:
        spec: The source, as `open_source` reads it.
        encoding: Layout of the frames' bytes.
        fps: Time steps per second; None: the source's own rate; 0: as fast as they can be taken.
        quality: Of JPEG, 1 to 100.
        loop: Begin again after the last frame.
        keep_images: Hand over the RGB image beside the encoded bytes.
        clock: Which clock stamps the capture times.
    """

    spec: str
    encoding: Encoding = "jpeg"
    fps: float | None = None
    quality: int = 90
    loop: bool = False
    keep_images: bool = False
    clock: ClockName = "monotonic"


@dataclass(frozen=True)
class Produced:
    """One frame: its bytes, its capture time, and its image where the recipe keeps it."""

    camera_id: str
    capture_time_ns: int
    pixels: Image
    image: Image | None


class Producer:
    """The process, open inside `with`.

    Args:
        recipe: What to produce.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.cameras: tuple[Camera, ...] = ()

    def next_step(self) -> Sequence[Produced] | None:
        """The frames of the next time step; None after the last. Blocks: call it from a thread.

        Raises:
            SourceError: The source failed.
        """
        try:
            message = self._receiving.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, ClientError):
            raise message
        steps: Sequence[Produced] | None = message
        return steps

    def __enter__(self) -> Producer:
        context = multiprocessing.get_context("spawn")
        self._receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(target=_produce, args=(self._recipe, sending), daemon=True, name="producer")
        self._process.start()
        sending.close()
        try:
            first = self._receiving.recv()
        except EOFError:
            self.__exit__(None, None, None)
            raise SourceError(
                f"the process that opens {self._recipe.spec} ended with {self._process.exitcode}"
            ) from None
        if isinstance(first, ClientError):
            self.__exit__(None, None, None)
            raise first
        self.cameras = first
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()
        self._receiving.close()


def _produce(recipe: Recipe, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    try:
        source = open_source(recipe.spec)
        cameras = tuple(camera.with_encoding(recipe.encoding) for camera in source.cameras)
        pipe.send(cameras)
        clock = StreamClock(recipe.clock)
        for step in paced(source, recipe):
            captured_ns = clock.now_ns()
            pipe.send(
                [
                    Produced(
                        camera_id=camera_id,
                        capture_time_ns=captured_ns,
                        pixels=encode(image, recipe.encoding, recipe.quality),
                        image=image if recipe.keep_images else None,
                    )
                    for camera_id, image in step.items()
                ]
            )
        pipe.send(None)
    except ClientError as error:
        pipe.send(error)
    except BrokenPipeError:
        pass  # the parent has what it wanted


def paced(source: Source, recipe: Recipe) -> Iterator[Mapping[str, Image]]:
    """The source's time steps at the recipe's rate. One that is late is not made up for by a burst."""
    period_ns = max((camera.period_ns for camera in source.cameras), default=0)
    if recipe.fps is not None:
        period_ns = round(1e9 / recipe.fps) if recipe.fps else 0
    elif source.is_live:
        period_ns = 0
    elif not period_ns:
        period_ns = round(1e9 / DEFAULT_FPS)
    due_ns = time.monotonic_ns()
    while True:
        for step in source.frames():
            ahead_ns = due_ns - time.monotonic_ns()
            if ahead_ns > 0:
                time.sleep(ahead_ns / 1e9)
            yield step
            due_ns = max(due_ns + period_ns, time.monotonic_ns() - period_ns)
        if not recipe.loop:
            return
