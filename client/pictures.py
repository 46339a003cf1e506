"""Writes annotated pictures and a video beside a run, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from client.draw import annotate, mosaic
from client.errors import ClientError
from client.frames import Camera, Image
from client.results import Result

QUEUE = 24
"""Results that wait to be drawn. Beyond it they are skipped, and counted: drawing must not hold up a stream."""


class PictureWriter:
    """Draws the results that it is given, open inside `with`.

    Args:
        cameras: Of the stream.
        labels: Classes of the engine.
        title: Of mosaics.
        directory: For one JPEG per frame, in a folder per camera, and `mosaic.png` at the end; None: none.
        video: MP4 file of mosaics (of the camera, where there is one); None: none.
        fps: Of the video.
        may_skip: Skip pictures rather than hold up the caller.

    Attributes:
        written: Pictures written.
        skipped: Results that were not drawn for lack of time.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        labels: Sequence[str],
        title: str,
        directory: Path | None,
        video: Path | None,
        fps: float,
        may_skip: bool,
    ) -> None:
        self.written = 0
        self.skipped = 0
        self._cameras = cameras
        self._labels = labels
        self._title = title
        self._directory = directory
        self._video = video
        self._fps = fps
        self._may_skip = may_skip
        self._writer: cv2.VideoWriter | None = None
        self._images: dict[str, Image] = {}
        self._results: dict[str, Result] = {}
        self._waiting: queue.Queue[Result | None] = queue.Queue(QUEUE)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)

    def add(self, result: Result) -> None:
        """Take a result whose `frame.context` is its image."""
        if result.status != "ok" or self._error is not None:
            return
        try:
            self._waiting.put(result, block=not self._may_skip)
        except queue.Full:
            self.skipped += 1

    def __enter__(self) -> PictureWriter:
        try:
            for folder in (self._directory, self._video and self._video.parent):
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClientError(f"cannot write pictures to {folder}: {error.strerror}\n  → name another folder") from None
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None:
            raise ClientError(f"cannot write pictures: {self._error}") from self._error

    def _run(self) -> None:
        try:
            while (result := self._waiting.get()) is not None:
                self._draw(result)
            if self._images and self._video is not None:
                self._add_to_video()
            if self._images and self._directory is not None:
                _write(self._directory / "mosaic.png", self._mosaic(640))
        except (OSError, cv2.error) as error:
            self._error = error
            while self._waiting.get() is not None:  # let nobody wait
                pass
        finally:
            if self._writer is not None:
                self._writer.release()

    def _draw(self, result: Result) -> None:
        image = result.frame.context if result.frame is not None else None
        if not isinstance(image, np.ndarray):
            return
        if self._video is not None and result.camera_id in self._images and result.camera_id == self._cameras[0].id:
            self._add_to_video()
        self._images[result.camera_id], self._results[result.camera_id] = image, result
        if self._directory is not None:
            path = self._directory / result.camera_id / f"{result.sequence:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            _write(path, annotate(image, result, result.camera_id.replace("_", " ")))
            self.written += 1

    def _mosaic(self, tile_width: int) -> Image:
        return mosaic(
            self._images,
            self._results,
            self._cameras,
            tile_width=tile_width,
            title=self._title,
            labels=self._labels,
        )

    def _add_to_video(self) -> None:
        picture = self._mosaic(640 if len(self._cameras) == 1 else 448)
        height, width = (size // 2 * 2 for size in picture.shape[:2])  # the codec needs even sizes
        if self._writer is None:
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._video), cv2.CAP_FFMPEG, fourcc, self._fps, (width, height))
            if not self._writer.isOpened():
                raise OSError(f"no video can be written to {self._video}; name a file that ends in .mp4")
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))
        self.written += 1


def _write(path: Path, image: Image) -> None:
    """Write the file whole or not at all."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else [])
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(np.asarray(data).tobytes())
    partial.replace(path)
