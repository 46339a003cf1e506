"""What it costs to bring a camera's frame into the network input, by encoding.

    python -m benchmarks.decode
    python -m benchmarks.decode --size 1920x1080 --network 640x384 --resize stretch --json out/decode.json

CPU time of one thread. Ours and OpenCV's own way (decode or convert the whole frame, then resize it with INTER_AREA)
take turns, and the ratio of their medians is what counts: absolute times belong to a machine and its mood. The error is
the mean absolute difference of the two network inputs, of 255.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import client
from client.encode_video import VIDEO_ENCODINGS
from client.frames import ENCODINGS, Encoding, encoding_to_proto
from engine.manifest import Preprocessing
from engine.preprocess import place
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import decode
from server.decode.samples import Samples
from server.decode.video import VideoDecoder, missing

ROUNDS = 25
VIDEO_FRAMES = 12
Array = npt.NDArray[np.uint8]
MATRIX: Any = pb.COLOR_MATRIX_BT601


@dataclass(frozen=True)
class Row:
    """One encoding.

    Attributes:
        encoding: Its name.
        frame_bytes: Size of the frame.
        decode_ms: Median of the stage `decode`.
        preprocess_ms: Median of the stage `preprocess`.
        opencv_ms: Median of OpenCV's own way.
        ratio: Ours by OpenCV's.
        error: Mean absolute difference.
    """

    encoding: str
    frame_bytes: int
    decode_ms: float
    preprocess_ms: float
    opencv_ms: float
    ratio: float
    error: float


def picture(width: int, height: int) -> Array:
    """A picture with smooth areas, edges and the noise of a sensor: (H, W, 3) RGB."""
    random = np.random.default_rng(0)
    coarse = random.integers(20, 236, (height // 40, width // 40, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(200):
        x, y = int(random.integers(width)), int(random.integers(height))
        end = (x + int(random.integers(8, 200)), y + int(random.integers(8, 100)))
        cv2.rectangle(scene, (x, y), end, [float(value) for value in random.integers(0, 256, 3)], -1)
    scene = cv2.GaussianBlur(scene, (0, 0), 1.0)  # what a lens leaves of an edge
    return np.asarray(np.clip(np.rint(scene + random.normal(0, 3, scene.shape)), 0, 255), np.uint8)


def opencv_way(encoding: Encoding, pixels: Array, width: int, height: int) -> Callable[[], Any]:
    """OpenCV's conversion of a whole frame to RGB; for video the picture of the decoder's luma and chroma."""
    nv12: Any = pixels.reshape(-1)[: width * height * 3 // 2].reshape(-1, width) if encoding == "nv12" else pixels
    flags = cv2.IMREAD_COLOR_RGB
    wide = pixels.view("<u2")[..., 0] if encoding in ("gray16", "bayer_rggb12", "bayer_rggb16") else pixels
    bits = 4095 if encoding == "bayer_rggb12" else 65535
    ways: dict[str, Callable[[], Any]] = {
        "jpeg": lambda: cv2.imdecode(pixels, flags),
        "png": lambda: cv2.imdecode(pixels, flags),
        "rgb8": lambda: pixels,
        "bgr8": lambda: cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB),
        "gray8": lambda: cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB),
        "gray16": lambda: cv2.cvtColor(cv2.convertScaleAbs(wide, alpha=255 / 65535), cv2.COLOR_GRAY2RGB),
        "nv12": lambda: cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12),
        "yuyv": lambda: cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_YUY2),
        "bayer_rggb8": lambda: cv2.cvtColor(pixels, cv2.COLOR_BayerRGGB2RGB),
        "bayer_rggb12": lambda: cv2.cvtColor(cv2.convertScaleAbs(wide, alpha=255 / bits), cv2.COLOR_BayerRGGB2RGB),
        "bayer_rggb16": lambda: cv2.cvtColor(cv2.convertScaleAbs(wide, alpha=255 / bits), cv2.COLOR_BayerRGGB2RGB),
        "bayer_rggb12p": lambda: cv2.cvtColor(_unpacked(pixels), cv2.COLOR_BayerRGGB2RGB),
    }
    return ways[encoding]


def _unpacked(pixels: Array) -> Any:  # noqa: ANN401 - OpenCV's stubs
    triples = pixels.reshape(pixels.shape[0], -1, 3)
    return np.ascontiguousarray(triples[..., :2]).reshape(pixels.shape[0], -1)


def measure(encoding: Encoding, image: Array, spec: Preprocessing, rounds: int) -> Row:
    """Measure an image encoding."""
    height, width = image.shape[:2]
    pixels = client.encode(image, encoding)
    header = pb.FrameHeader(encoding=encoding_to_proto(encoding), width=width, height=height, color_matrix=MATRIX)
    data = memoryview(pixels.tobytes())
    whole = opencv_way(encoding, pixels, width, height)
    theirs = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
    window = place(width, height, spec).window(theirs)
    ours = np.empty_like(theirs)
    times: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        start = time.thread_time()
        decoded = decode(header, data, spec)
        between = time.thread_time()
        decoded.write_into(ours)
        end = time.thread_time()
        part = place(width, height, spec).part(whole())
        window[:] = cv2.resize(part, window.shape[1::-1], interpolation=cv2.INTER_AREA)
        times.append((between - start, end - between, time.thread_time() - end))
    error = float(np.abs(ours.astype(int) - theirs).mean())
    return _row(encoding, len(data), times, error)


def measure_video(encoding: Literal["h264", "h265"], image: Array, spec: Preprocessing, rounds: int) -> Row:
    """Measure a video encoding: the same picture, moving; both ways share the decoder, the ratio is of all."""
    height, width = image.shape[:2]
    encoder = client.VideoEncoder(encoding, width, height, keyframe_every=VIDEO_FRAMES)
    units = [encoder.encode(np.roll(image, 4 * number, axis=1)) for number in range(VIDEO_FRAMES)]
    number = encoding_to_proto(encoding)
    decoder = VideoDecoder(pb.Camera(id="a", width=width, height=height, encoding=number))
    theirs = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
    window = place(width, height, spec).window(theirs)
    ours = np.empty_like(theirs)
    times: list[tuple[float, float, float]] = []
    errors = []
    for sequence in range(max(rounds, VIDEO_FRAMES)):
        unit = units[sequence % VIDEO_FRAMES]
        header = pb.FrameHeader(encoding=number, width=width, height=height, sequence=sequence)
        start = time.thread_time()
        (outcome,) = decoder.decode(header, memoryview(unit.tobytes()))
        between = time.thread_time()
        decode(header, memoryview(b""), spec, cast("Samples", outcome.picture)).write_into(ours)
        end = time.thread_time()
        yuv: Any = outcome.picture
        planar = np.concatenate([plane.reshape(-1) for plane in (yuv.luma, *yuv.chroma)])
        rgb = cv2.cvtColor(planar.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_I420)
        part = place(width, height, spec).part(np.asarray(rgb, np.uint8))
        window[:] = cv2.resize(part, window.shape[1::-1], interpolation=cv2.INTER_AREA)
        times.append((between - start, end - between, time.thread_time() - end + between - start))
        errors.append(float(np.abs(ours.astype(int) - theirs).mean()))
    return _row(encoding, int(statistics.median(map(len, units))), times, statistics.mean(errors))


def _row(encoding: str, frame_bytes: int, times: list[tuple[float, float, float]], error: float) -> Row:
    first, second, theirs = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    return Row(encoding, frame_bytes, first, second, theirs, (first + second) / theirs, error)


def main() -> int:
    """Measure every encoding and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080", help="of the frames (%(default)s)")
    parser.add_argument("--network", default="640x384", help="size of the network input (%(default)s)")
    parser.add_argument("--resize", choices=("letterbox", "stretch", "crop"), default="letterbox")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    network_width, network_height = map(int, options.network.split("x"))
    spec = Preprocessing(input="images", color="rgb", width=network_width, height=network_height, resize=options.resize)
    cv2.setNumThreads(1)
    image = picture(width, height)
    rows = [measure(encoding, image, spec, options.rounds) for encoding in ENCODINGS if encoding not in VIDEO_ENCODINGS]
    if not missing():
        rows += [measure_video(encoding, image, spec, options.rounds) for encoding in VIDEO_ENCODINGS]
    table = Table(title=f"{options.size} to {options.network}, {options.resize}; ms, median of {options.rounds}")
    for column in ("encoding", "bytes", "decode", "resize", "OpenCV", "ratio", "error"):
        table.add_column(column, justify="left" if column == "encoding" else "right")
    for row in rows:
        table.add_row(
            row.encoding, f"{row.frame_bytes:,}", f"{row.decode_ms:.2f}", f"{row.preprocess_ms:.2f}",
            f"{row.opencv_ms:.2f}", f"{row.ratio:.2f}", f"{row.error:.2f}",
        )  # fmt: skip
    Console().print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
