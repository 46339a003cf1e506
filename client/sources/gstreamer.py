"""Any GStreamer pipeline, run by `gst-launch-1.0`, its raw frames read from a pipe."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from client.errors import SourceError
from client.frames import Camera, Image

START_SECONDS = 15.0
"""How long a pipeline may take to settle on a size."""

_CAPS = re.compile(r"GstFdSink:\S+?:sink: caps = video/x-raw.*")


class GStreamerSource:
    """Frames of one pipeline, for example `gst:videotestsrc ! video/x-raw,width=640,height=384`.

    The pipeline ends in raw video of any format; converting to RGB and handing over is added. No shell is involved.

    Raises:
        SourceError: GStreamer is not installed, or the pipeline does not run.
    """

    is_live = True

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        program = shutil.which("gst-launch-1.0")
        if program is None:
            raise SourceError(
                "gst: sources need gst-launch-1.0, which is not installed"
                "\n  → apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base"
            )
        try:
            words = shlex.split(pipeline)
        except ValueError as error:
            raise SourceError(f"cannot read the pipeline {pipeline!r}: {error}") from error
        if not words:
            raise SourceError("gst: needs a pipeline\n  → 'gst:videotestsrc ! video/x-raw,width=640,height=384'")
        reading, writing = os.pipe()
        sink = ["!", "videoconvert", "!", "video/x-raw,format=RGB", "!", "fdsink", f"fd={writing}", "sync=true"]
        self._process = subprocess.Popen(  # noqa: S603 - the user's own pipeline, as arguments
            [program, "-v", *words, *sink],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(writing,),
        )
        os.close(writing)
        self._frames = os.fdopen(reading, "rb", buffering=0)
        watchdog = threading.Timer(START_SECONDS, self._process.terminate)
        watchdog.start()
        try:
            width, height, period_ns = self._negotiated()
        finally:
            watchdog.cancel()
            watchdog.join()
        self.cameras: tuple[Camera, ...] = (Camera("gst", width, height, period_ns=period_ns),)

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """Until the pipeline ends."""
        width, height = self.cameras[0].width, self.cameras[0].height
        stride = (width * 3 + 3) // 4 * 4  # GStreamer pads rows of RGB to four bytes
        try:
            while True:
                buffer = np.empty(stride * height, np.uint8)
                if not self._fill(buffer.data):
                    return
                yield {"gst": buffer.reshape(height, stride)[:, : width * 3].reshape(height, width, 3)}
        finally:
            self.close()

    def close(self) -> None:
        """End the pipeline."""
        self._frames.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _negotiated(self) -> tuple[int, int, int]:
        """Width, height and period that the pipeline settled on, from what it prints."""
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        said: list[str] = []
        for line in self._process.stdout:
            said.append(line.strip())
            found = _CAPS.search(line)
            if found is not None:
                numbers = re.search(r"width=\(int\)(\d+).*?height=\(int\)(\d+)", found[0])
                rate = re.search(r"framerate=\(fraction\)(\d+)/(\d+)", found[0])
                if numbers is not None:
                    period_ns = int(rate[2]) * 10**9 // int(rate[1]) if rate is not None and int(rate[1]) else 0
                    return int(numbers[1]), int(numbers[2]), period_ns
        self.close()
        errors = [line for line in said if "ERROR" in line or "WARNING" in line] or said[-3:]
        errors.append(f"it settled on no size within {START_SECONDS:g} s, or ended before")
        raise SourceError(
            f"the pipeline does not run: {self._pipeline}\n  " + "\n  ".join(errors)
            + "\n  → try it alone: gst-launch-1.0 " + self._pipeline + " ! fakesink"
        )  # fmt: skip

    def _fill(self, buffer: memoryview) -> bool:
        """Read one whole frame; False where the pipeline has ended."""
        done = 0
        while done < len(buffer):
            got = self._frames.readinto(buffer[done:])
            if not got:
                return False
            done += got
        return True
