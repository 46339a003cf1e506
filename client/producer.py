"""Frames made in a process of their own.

Rendering, reading and compressing take milliseconds of CPU. In this process they would delay the event loop, and
what the ledger calls `returned` would measure them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from client.clock import ClockName, StreamClock
from client.encode import encode
from client.encode_video import VIDEO_ENCODINGS, VideoEncoder
from client.errors import ClientError, SourceError
from client.frames import Camera, Encoding, Image
from client.sources import DEFAULT_FPS, Source, open_source
from client.sources.video import VideoSource

Steps = Callable[[], Iterator[Mapping[str, Any]]]
"""Gives the time steps of a source, from the first."""


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

    Attributes:
        cameras: Whose frames it produces.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.cameras: tuple[Camera, ...] = ()
        self._recipe = recipe

    def next_step(self) -> Sequence[Produced] | None:
        """The frames of the next time step; None after the last. Blocks: call it from a thread.

        Raises:
            SourceError: The source failed.
        """
        step: Sequence[Produced] | None = self._receive()
        return step

    def __enter__(self) -> Producer:
        reading, writing = os.pipe()
        self._pipe = Connection(reading, writable=False)
        # In a session of its own, Ctrl-C does not reach it: this process decides when to stop.
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this package
            [sys.executable, "-m", "client.producer_process", str(writing)],
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)
        try:
            assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
            with self._process.stdin as stdin:
                stdin.write(pickle.dumps(self._recipe))
            cameras = self._receive()
            if cameras is None:
                code = self._process.wait()
                raise SourceError(f"the process that opens {self._recipe.spec} ended at once, with code {code}")
            self.cameras = cameras
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._pipe.close()

    def _receive(self) -> Any:  # noqa: ANN401 - cameras first, then steps, then None; or an error
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, ClientError):
            raise message
        return message


def produce(recipe: Recipe, pipe: Connection) -> None:
    """What the process does: send the cameras, then a list of frames per time step, then None."""
    try:
        source = open_source(recipe.spec, recipe.fps or DEFAULT_FPS)
        pipe.send(tuple(camera.with_encoding(recipe.encoding) for camera in source.cameras))
        clock = StreamClock(recipe.clock)
        steps, made = _workshop(source, recipe)
        for step in paced(source, recipe, steps):
            captured_ns = clock.now_ns()
            pipe.send([made(camera_id, item, captured_ns) for camera_id, item in step.items()])
        pipe.send(None)
    except ClientError as error:
        pipe.send(error)
    except BrokenPipeError:
        pass  # the parent has had enough


def _workshop(source: Source, recipe: Recipe) -> tuple[Steps, Callable[[str, Any, int], Produced]]:
    """Where time steps come from, and what makes a frame of a camera's part of one and its capture time.

    Access units of video files go out as they are, unless someone wants the images too.
    """
    if recipe.encoding not in VIDEO_ENCODINGS:
        return source.frames, lambda camera_id, image, captured_ns: Produced(
            camera_id,
            captured_ns,
            encode(image, recipe.encoding, recipe.quality),
            image if recipe.keep_images else None,
        )
    encoding = recipe.encoding
    if isinstance(source, VideoSource) and not recipe.keep_images and source.is_encoded_as(encoding):
        return (
            lambda: source.access_units(encoding),
            lambda camera_id, unit, now_ns: Produced(camera_id, now_ns + unit.capture_offset_ns, unit.pixels, None),
        )
    encoders = {camera.id: VideoEncoder(encoding, camera.width, camera.height) for camera in source.cameras}
    return source.frames, lambda camera_id, image, captured_ns: Produced(
        camera_id, captured_ns, encoders[camera_id].encode(image), image if recipe.keep_images else None
    )


def paced(source: Source, recipe: Recipe, steps: Steps) -> Iterator[Mapping[str, Any]]:
    """Time steps at the recipe's rate. One that is late is not made up for by a burst.

    Args:
        source: Knows its own rate.
        recipe: Says whether to keep to it.
        steps: Begins again with the first.
    """
    period_ns = _period_ns(source, recipe)
    due_ns = time.monotonic_ns()
    while True:
        for step in steps():
            now_ns = time.monotonic_ns()
            if due_ns > now_ns:
                time.sleep((due_ns - now_ns) / 1e9)
            yield step
            due_ns = max(due_ns, now_ns) + period_ns
        if not recipe.loop:
            return


def _period_ns(source: Source, recipe: Recipe) -> int:
    if recipe.fps is not None:
        return round(1e9 / recipe.fps) if recipe.fps else 0
    if source.is_live:
        return 0  # it keeps its own time
    own_ns = max((camera.period_ns for camera in source.cameras), default=0)
    return own_ns or round(1e9 / DEFAULT_FPS)
