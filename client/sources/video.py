"""A video file, and a V4L2 camera device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from client.errors import SourceError
from client.frames import Camera, Image


class VideoSource:
    """The frames of a video file, as one camera that is named after it.

    Raises:
        SourceError: The file cannot be decoded.
    """

    is_live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        width, height = _size(capture)
        capture.release()
        period_ns = round(1e9 / fps) if 0 < fps < 1000 else 0
        self.cameras: tuple[Camera, ...] = (Camera(_camera_id(path.stem), width, height, period_ns=period_ns),)

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """From the first frame to the last."""
        capture = self._open()
        try:
            yield from _frames(capture, self.cameras[0].id)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened() or 0 in _size(capture):
            raise SourceError(
                f"{self._path} ({self._path.stat().st_size} bytes) is not a video that can be decoded"
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
