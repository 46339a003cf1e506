"""What is fuzzed: everything between the bytes of a frame and the network input.

    python -m tests.server.decode.fuzz jpeg -max_total_time=600 CORPUS

runs it under atheris (`pip install atheris`; CPython on Linux), with libFuzzer's own options behind the encoding.
"""

from __future__ import annotations

import sys

import numpy as np

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import DecodeFailed, decode
from server.decode.samples import Samples
from server.decode.video import VideoDecoder
from server.stream.layout import VIDEO_ENCODINGS, check_frame
from tests.server.decode.pictures import spec

WIDTH, HEIGHT = 64, 48


class Target:
    """A camera of one encoding, without a network.

    Args:
        encoding: Of its frames.
    """

    def __init__(self, encoding: int) -> None:
        self._camera = pb.Camera(id="a", encoding=encoding, width=WIDTH, height=HEIGHT)  # type: ignore[arg-type]
        self._video = VideoDecoder(self._camera) if encoding in VIDEO_ENCODINGS else None
        self._spec = spec(24, 20, resize="crop")
        self._out = np.zeros((20, 24, 3), np.uint8)
        self._sequence = 0
        self._owed = 0

    def __call__(self, data: bytes) -> None:
        """A frame of these bytes."""
        header = pb.FrameHeader(encoding=self._camera.encoding, width=WIDTH, height=HEIGHT, sequence=self._sequence)
        self._sequence += 1
        reason = check_frame(header, memoryview(data), self._camera, 1 << 20)
        if reason is not None:
            assert reason
            return
        if self._video is None:
            self._show(header, memoryview(data))
            return
        self._owed += 1
        for outcome in self._video.decode(header, memoryview(data)):
            self._owed -= 1
            if outcome.picture is None:
                assert outcome.reason
            else:
                self._show(header, memoryview(b""), outcome.picture)

    def rest(self) -> None:
        """No more frames: every access unit has had its outcome."""
        if self._video is not None:
            assert self._owed == len(self._video.flush())
            self._owed = 0

    def _show(self, header: pb.FrameHeader, data: memoryview, picture: Samples | None = None) -> None:
        try:
            decode(header, data, self._spec, picture).write_into(self._out)
        except DecodeFailed as error:
            assert str(error)


def main() -> None:
    """Fuzz one encoding until libFuzzer stops."""
    import atheris

    atheris.instrument_all()  # guided by our own code; the libraries behind it are not instrumented
    target = Target(pb.Encoding.Value(f"ENCODING_{sys.argv[1].upper()}"))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
