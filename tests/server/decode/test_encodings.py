"""Every encoding of one picture gives the engine the same picture, at any size and in any resize mode."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.preprocess import place, resize_into
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import decode
from server.stream.layout import ENCODINGS, VIDEO_ENCODINGS, check_frame, row_bytes
from tests.server.decode.pictures import gray, header, in_encoding, network_input, picture, spec

STILL = sorted(ENCODINGS - VIDEO_ENCODINGS)
GRAYS = {pb.ENCODING_GRAY8, pb.ENCODING_GRAY16}
NAMES = {encoding: pb.Encoding.Name(pb.Encoding.ValueType(encoding)) for encoding in STILL}


def expected(encoding: int, image: Any, wanted: Any) -> Any:
    """The whole picture, resized as `engine.preprocess` does it: what calibration saw."""
    source = image
    if encoding in GRAYS and wanted.color == "rgb":
        source = np.repeat(gray(image)[..., None], 3, axis=2)
    elif wanted.color == "gray":
        source = gray(image)
    out = np.empty((wanted.height, wanted.width, wanted.channels), np.uint8)
    resize_into(source, wanted, out)
    return out


@pytest.mark.parametrize("encoding", STILL, ids=NAMES.get)
@pytest.mark.parametrize("resize", ["letterbox", "stretch", "crop"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("size", [(160, 96), (320, 180), (75, 45)], ids=["half", "equal", "odd ratio"])
def test_the_engine_sees_the_picture(encoding: int, resize: str, color: str, size: tuple[int, int]) -> None:
    image = picture(320, 180, noise=1.0)
    wanted = spec(*size, resize=resize, color=color)
    seen = network_input(
        header(encoding, 320, 180, color_matrix=pb.COLOR_MATRIX_BT601), in_encoding(encoding, image), wanted
    )
    difference = np.abs(seen.astype(int) - expected(encoding, image, wanted))
    assert difference.mean() < 4.0
    assert np.percentile(difference, 99.9) < 25  # an offset of a pixel, or channels in another order, is far more


@settings(max_examples=40)
@given(
    encoding=st.sampled_from([encoding for encoding in STILL if encoding not in (pb.ENCODING_JPEG, pb.ENCODING_PNG)]),
    half_width=st.integers(2, 40),
    half_height=st.integers(2, 40),
    padding=st.integers(0, 33),
    resize=st.sampled_from(["letterbox", "stretch", "crop"]),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
)
def test_padding_of_rows_changes_nothing(
    encoding: int, half_width: int, half_height: int, padding: int, resize: str, color: str
) -> None:
    width, height = 2 * half_width, 2 * half_height
    tight = in_encoding(encoding, picture(width, height))
    row = row_bytes(encoding, width)
    stride = row + padding
    rows = np.frombuffer(tight, np.uint8).reshape(-1, row)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99).tobytes()
    said = header(encoding, width, height, stride_bytes=stride)
    camera = pb.Camera(id="a", encoding=encoding, width=width, height=height)  # type: ignore[arg-type]
    assert check_frame(said, memoryview(padded), camera, 10**6) is None
    wanted = spec(33, 21, resize=resize, color=color)
    np.testing.assert_array_equal(
        network_input(said, padded, wanted), network_input(header(encoding, width, height), tight, wanted)
    )


@settings(max_examples=40)
@given(
    encoding=st.sampled_from(STILL),
    half_width=st.integers(2, 25),
    half_height=st.integers(2, 25),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    resize=st.sampled_from(["letterbox", "stretch", "crop"]),
    kernel=st.sampled_from(["area", "bilinear", "nearest", "bicubic"]),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    value_range=st.sampled_from(["full", "limited"]),
)
def test_a_grey_picture_stays_grey_whatever_the_geometry(
    encoding: int, half_width: int, half_height: int, width: int, height: int, resize: Any, kernel: Any, color: Any,
    value_range: Any,
) -> None:  # fmt: skip
    image = np.full((2 * half_height, 2 * half_width, 3), 120, np.uint8)
    wanted = spec(width, height, resize=resize, kernel=kernel, color=color, value_range=value_range, pad_value=120)
    said = header(encoding, 2 * half_width, 2 * half_height)
    out = np.full((3, height, width, wanted.channels), 7, np.uint8)
    placement = decode(said, memoryview(in_encoding(encoding, image)), wanted).write_into(out[1])
    assert placement == place(2 * half_width, 2 * half_height, wanted)
    level = 120 if value_range == "full" else round(16 + 120 * 219 / 255)
    window = placement.window(out[1])
    assert np.abs(window.astype(int) - level).max() <= 3
    assert (out[0] == 7).all()
    assert (out[2] == 7).all()


def test_sixteen_bits_keep_their_ends() -> None:
    samples = np.array([[0, 65535, 32768, 257]] * 4, "<u2")
    seen = network_input(header(pb.ENCODING_GRAY16, 4, 4), samples.tobytes(), spec(4, 4, color="gray"))
    assert seen[0, :, 0].tolist() == [0, 255, 128, 1]


@pytest.mark.parametrize(
    ("encoding", "white"),
    [(pb.ENCODING_BAYER_RGGB8, 255), (pb.ENCODING_BAYER_RGGB12, 4095), (pb.ENCODING_BAYER_RGGB16, 65535)],
)
@pytest.mark.parametrize("channel", range(3))
def test_a_mosaic_of_one_colour_has_it_in_its_channel(encoding: int, white: int, channel: int) -> None:
    """Written down by hand: red at even rows and columns, blue at odd ones, green at the others."""
    sites = {0: [(0, 0)], 1: [(0, 1), (1, 0)], 2: [(1, 1)]}[channel]
    mosaic = np.zeros((8, 8), "<u2" if white > 255 else np.uint8)
    for row, column in sites:
        mosaic[row::2, column::2] = white
    seen = network_input(header(encoding, 8, 8), mosaic.tobytes(), spec(8, 8))
    assert (seen[..., channel] == 255).all()
    assert (np.delete(seen, channel, axis=2) == 0).all()


def test_packed_samples_are_the_unpacked_ones() -> None:
    """V4L2's example of pRCC: the first two bytes hold the high bits, the third the low bits of both."""
    data = bytes([0xAB, 0x12, 0xFC] * 32)  # 0xABC and 0x12F
    unpacked = np.tile(np.array([0xABC, 0x12F], "<u2"), 32).tobytes()
    wanted = spec(8, 8)
    packed = network_input(header(pb.ENCODING_BAYER_RGGB12P, 8, 8), data, wanted)
    spread = network_input(header(pb.ENCODING_BAYER_RGGB12, 8, 8), unpacked, wanted)
    assert np.abs(packed.astype(int) - spread).max() <= 1


@pytest.mark.parametrize("matrix", [pb.COLOR_MATRIX_BT601, pb.COLOR_MATRIX_BT709])
@pytest.mark.parametrize("limited", [True, False])
def test_averaging_before_converting_is_averaging_after(matrix: int, limited: bool) -> None:
    """NV12 is resized plane by plane: its conversion is affine, so nothing but rounding may differ."""
    image = picture(320, 200, noise=2.0)
    data = in_encoding(pb.ENCODING_NV12, image)
    color_range = pb.COLOR_RANGE_LIMITED if limited else pb.COLOR_RANGE_FULL
    said = header(pb.ENCODING_NV12, 320, 200, color_matrix=matrix, color_range=color_range)
    whole = network_input(said, data, spec(320, 200)).astype(np.float32)
    averaged = cv2.resize(whole, (80, 50), interpolation=cv2.INTER_AREA)
    seen = network_input(said, data, spec(80, 50))
    inside = (averaged > 8).all(axis=2) & (averaged < 247).all(axis=2)  # a saturated pixel averages differently
    assert inside.mean() > 0.5
    assert np.abs(seen - averaged)[inside].max() <= 2.5
