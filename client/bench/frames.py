"""Frames to offer: encoded once, before the run, so that making them costs the run nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from client.encode import encode
from client.errors import SourceError
from client.frames import Camera, Encoding, Frame, Image
from client.sources import DEFAULT_FPS, open_source

FRAMES_PER_CAMERA = 4
"""Different pictures per camera: enough that no cache along the way sees the same bytes every time."""


@dataclass(frozen=True)
class Ammunition:
    """What a run sends, ready for the wire.

    Attributes:
        cameras: The cameras.
        pixels: Encoded pictures per camera, used in turn.
        name: What they are, for a table.
    """

    cameras: tuple[Camera, ...]
    pixels: tuple[tuple[Image, ...], ...]
    name: str

    @property
    def mean_bytes(self) -> float:
        """Bytes of a frame, on average."""
        return float(np.mean([picture.nbytes for pictures in self.pixels for picture in pictures]))

    def frame(self, camera: int, number: int, capture_time_ns: int | None, context: int) -> Frame:
        """The frame that a camera takes as its `number`-th."""
        pictures = self.pixels[camera]
        spec = self.cameras[camera]
        return Frame(
            camera_id=spec.id,
            pixels=pictures[number % len(pictures)],
            capture_time_ns=capture_time_ns,
            color_matrix="bt601" if spec.encoding in ("nv12", "yuyv") else None,
            context=context,
        )


def load(
    cameras: int,
    encodings: Sequence[Encoding],
    width: int,
    height: int,
    quality: int = 90,
    source: str | None = None,
    prefix: str = "bench",
) -> Ammunition:
    """Make frames.

    Args:
        cameras: How many; the encodings are dealt out to them in turn.
        encodings: One, or several for a mixed load.
        width: Columns.
        height: Rows.
        quality: Of JPEG, 1 to 100.
        source: Where pictures come from, as `client stream` takes it; None draws noise that compresses like a street.
        prefix: Begins the cameras' ids; each of several generators at one server needs its own.

    Raises:
        SourceError: The source has no pictures, or cannot be opened.
        FrameInvalid: An encoding cannot hold frames of this size.
    """
    pictures = _drawn(cameras, width, height) if source is None else _taken(source, cameras, width, height)
    specs, pixels = [], []
    for index, own in enumerate(pictures):
        encoding = encodings[index % len(encodings)]
        specs.append(Camera(f"{prefix}_{index}", width, height, encoding))
        pixels.append(tuple(encode(picture, encoding, quality) for picture in own))
    used = ",".join(dict.fromkeys(spec.encoding for spec in specs))
    return Ammunition(tuple(specs), tuple(pixels), f"{used} {width}x{height}")


def picture(width: int, height: int, seed: int) -> Image:
    """Smooth noise, (H, W, 3): a JPEG of quality 90 takes about 1.5 bits a pixel, as one of a street does."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _drawn(cameras: int, width: int, height: int) -> list[list[Image]]:
    return [
        [picture(width, height, seed=index * FRAMES_PER_CAMERA + number) for number in range(FRAMES_PER_CAMERA)]
        for index in range(cameras)
    ]


def _taken(spec: str, cameras: int, width: int, height: int) -> list[list[Image]]:
    """The first pictures of a source; cameras beyond its own begin again with its first."""
    source = open_source(spec, DEFAULT_FPS)
    steps = list(itertools.islice(source.frames(), FRAMES_PER_CAMERA))
    found = [[step[camera.id] for step in steps if camera.id in step] for camera in source.cameras]
    found = [pictures for pictures in found if pictures]
    if not found:
        raise SourceError(f"{spec} has no pictures\n  → leave --source out to send drawn ones")
    sized = [[np.asarray(cv2.resize(one, (width, height)), np.uint8) for one in pictures] for pictures in found]
    return [sized[index % len(sized)] for index in range(cameras)]
