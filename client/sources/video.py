"""Video files, and a V4L2 camera device."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from client.encode_video import VideoEncoding
from client.errors import SourceError
from client.frames import Camera, Image
from client.sources.access_units import AccessUnit, access_units, codec_of

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".h264", ".264", ".h265", ".265", ".hevc")
"""Files of a folder that are taken for videos."""


def videos(folder: Path) -> list[Path]:
    """The video files of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


class VideoSource:
    """Video files, each as one camera that is named after it; time step *i* is every file's *i*-th frame.

    Args:
        paths: The files.

    Raises:
        SourceError: A file cannot be decoded.
    """

    is_live = False

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [_VideoFile(path) for path in paths]
        self.cameras: tuple[Camera, ...] = tuple(file.camera for file in self._files)
        names = [camera.id for camera in self.cameras]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SourceError(f"several video files make a camera called {', '.join(sorted(twice))}; rename them")

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """From the first frame to the last of the longest."""
        return _steps({file.camera.id: file.frames() for file in self._files})

    def is_encoded_as(self, encoding: VideoEncoding) -> bool:
        """Whether `access_units` can give every file's frames as they are encoded.

        Raises:
            FrameInvalid: PyAV is not installed.
        """
        return all(codec_of(file.path) == encoding for file in self._files)

    def access_units(self, encoding: VideoEncoding) -> Iterator[Mapping[str, AccessUnit]]:
        """The same as `frames`, but as they are encoded, in decoding order."""
        return _steps({file.camera.id: access_units(file.path, encoding) for file in self._files})


class _VideoFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        width, height = _size(capture)
        capture.release()
        period_ns = round(1e9 / fps) if 0 < fps < 1000 else 0
        self.camera = Camera(_camera_id(path.stem), width, height, period_ns=period_ns)

    def frames(self) -> Iterator[Image]:
        capture = self._open()
        try:
            for step in _frames(capture, self.camera.id):
                yield from step.values()
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not capture.isOpened() or 0 in _size(capture):
            raise SourceError(
                f"{self.path} ({self.path.stat().st_size} bytes) is not a video that can be decoded"
                "\n  → for a folder of images, name the folder"
            )
        return capture


class DeviceSource:
    """A camera at `/dev/videoN`.

    Raises:
        SourceError: There is no such device, or it gives no frames.
    """

    is_live = True

    def __init__(self, device: str) -> None:
        if not device or not Path(device).exists():
            found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
            raise SourceError(f"no camera at {device or '(nothing)'}; devices found: {found}\n  → v4l2:/dev/video0")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # errors only: what follows says it better
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(
                f"{device} exists but cannot be opened as a V4L2 camera"
                "\n  → is another program using it? may this user read it (group `video`)?"
            )
        # One buffer: an older frame in the driver's queue is never of use.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        width, height = _size(self._capture)
        period_ns = round(1e9 / fps) if fps > 0 else 0
        self.cameras: tuple[Camera, ...] = (Camera(_camera_id(Path(device).name), width, height, period_ns=period_ns),)

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """As the device gives them."""
        yield from _frames(self._capture, self.cameras[0].id)


_Item = TypeVar("_Item")


def _steps(cameras: Mapping[str, Iterator[_Item]]) -> Iterator[Mapping[str, _Item]]:
    """What every camera has next, by its id, until the last has ended."""
    for step in itertools.zip_longest(*cameras.values()):
        yield {name: item for name, item in zip(cameras, step, strict=True) if item is not None}


def _size(capture: cv2.VideoCapture) -> tuple[int, int]:
    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))


def _frames(capture: cv2.VideoCapture, camera_id: str) -> Iterator[Mapping[str, Image]]:
    while True:
        got, bgr = capture.read()
        if not got:
            return
        yield {camera_id: np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)}


def _camera_id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:64] or "camera"
