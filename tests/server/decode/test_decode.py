from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.manifest import Preprocessing
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import DecodeFailed
from server.decode import decode as decode_frame

BT601, BT709 = pb.COLOR_MATRIX_BT601, pb.COLOR_MATRIX_BT709
FULL, LIMITED = pb.COLOR_RANGE_FULL, pb.COLOR_RANGE_LIMITED


def header(encoding: int, width: int, height: int, **fields: Any) -> pb.FrameHeader:
    return pb.FrameHeader(encoding=encoding, width=width, height=height, **fields)  # type: ignore[arg-type]


def decode(frame: pb.FrameHeader, data: memoryview, color: Any, value_range: Any, **spec: Any) -> Any:
    """The frame as a network of the frame's own size gets it."""
    fields = {"width": frame.width, "height": frame.height} | spec
    wanted = Preprocessing(input="images", color=color, value_range=value_range, **fields)
    out = np.full((wanted.height, wanted.width, wanted.channels), 77, np.uint8)
    decode_frame(frame, data, wanted).write_into(out)
    return out[..., 0] if color == "gray" else out


def nv12(y: int, u: int, v: int, width: int = 4, height: int = 2) -> bytes:
    return bytes([y]) * (width * height) + bytes([u, v]) * (width * height // 4)


def yuyv(y: int, u: int, v: int, width: int = 4, height: int = 2) -> bytes:
    return bytes([y, u, y, v]) * (width * height // 2)


# Computed by hand from Kr, Kb and the ranges, e.g. BT.601 limited red: Y' = 16 + 219 * 0.299 = 81.5,
# Cb = 128 - 224 * 0.299 / 1.772 = 90.2, Cr = 128 + 112 = 240.
COLORS = [
    pytest.param(BT601, LIMITED, (16, 128, 128), (0, 0, 0), id="601 limited black"),
    pytest.param(BT601, LIMITED, (235, 128, 128), (255, 255, 255), id="601 limited white"),
    pytest.param(BT601, LIMITED, (126, 128, 128), (128, 128, 128), id="601 limited grey"),
    pytest.param(BT601, LIMITED, (81, 90, 240), (254, 0, 0), id="601 limited red"),
    pytest.param(BT601, LIMITED, (145, 54, 34), (0, 255, 1), id="601 limited green"),
    pytest.param(BT601, LIMITED, (41, 240, 110), (0, 0, 255), id="601 limited blue"),
    pytest.param(BT709, LIMITED, (63, 102, 240), (255, 1, 0), id="709 limited red"),
    pytest.param(BT709, LIMITED, (173, 42, 26), (0, 255, 1), id="709 limited green"),
    pytest.param(BT709, LIMITED, (32, 240, 118), (1, 0, 255), id="709 limited blue"),
    pytest.param(BT601, FULL, (76, 85, 255), (254, 0, 0), id="601 full red"),
    pytest.param(BT601, FULL, (0, 128, 128), (0, 0, 0), id="601 full black"),
    pytest.param(BT601, FULL, (255, 128, 128), (255, 255, 255), id="601 full white"),
    pytest.param(BT709, FULL, (54, 99, 255), (254, 0, 0), id="709 full red"),
]


@pytest.mark.parametrize(("matrix", "value_range", "yuv", "rgb"), COLORS)
@pytest.mark.parametrize(("encoding", "pack"), [(pb.ENCODING_NV12, nv12), (pb.ENCODING_YUYV, yuyv)])
def test_yuv_gives_the_colours_computed_by_hand(
    encoding: int, pack: Any, matrix: int, value_range: int, yuv: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    frame = header(encoding, 4, 2, color_matrix=matrix, color_range=value_range)
    image = decode(frame, memoryview(pack(*yuv)), "rgb", "full")
    assert image.shape == (2, 4, 3)
    assert np.abs(image.astype(int) - rgb).max() <= 2  # the samples themselves are rounded
    swapped = decode(frame, memoryview(pack(*yuv)), "bgr", "full")
    assert np.array_equal(swapped, image[..., ::-1])


@given(
    yuv=st.tuples(st.integers(16, 235), st.integers(16, 240), st.integers(16, 240)),
    matrix=st.sampled_from([BT601, BT709]),
)
def test_yuv_is_within_one_step_of_the_exact_value(yuv: tuple[int, int, int], matrix: int) -> None:
    red, blue = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}[matrix]
    luma, cb, cr = (yuv[0] - 16) / 219, (yuv[1] - 128) / 224, (yuv[2] - 128) / 224
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    exact = np.clip(np.array([r, g, b]) * 255, 0, 255)
    frame = header(pb.ENCODING_NV12, 4, 2, color_matrix=matrix)
    assert np.abs(decode(frame, memoryview(nv12(*yuv)), "rgb", "full")[0, 0] - exact).max() <= 1


def test_the_matrix_follows_the_number_of_rows_where_it_is_not_said() -> None:
    for rows, matrix in ((576, BT601), (578, BT709)):
        data = memoryview(nv12(100, 90, 200, 4, rows))
        said = decode(header(pb.ENCODING_NV12, 4, rows, color_matrix=matrix), data, "rgb", "full")
        assert np.array_equal(decode(header(pb.ENCODING_NV12, 4, rows), data, "rgb", "full"), said)


def test_chroma_samples_stay_with_their_pixels() -> None:
    """Four columns, two chroma samples: the left pair is red, the right pair is blue."""
    luma = bytes([81, 81, 41, 41]) * 2
    data = luma + bytes([90, 240, 240, 110])
    image = decode(header(pb.ENCODING_NV12, 4, 2), memoryview(data), "rgb", "full")
    assert (image[:, :2, 0] > 250).all()
    assert (image[:, 2:, 2] > 250).all()
    packed = bytes([81, 90, 81, 240, 41, 240, 41, 110]) * 2
    assert np.array_equal(decode(header(pb.ENCODING_YUYV, 4, 2), memoryview(packed), "rgb", "full"), image)


@pytest.mark.parametrize(
    ("encoding", "planes"),
    [
        (pb.ENCODING_RGB8, [(6, 12)]),
        (pb.ENCODING_BGR8, [(6, 12)]),
        (pb.ENCODING_GRAY8, [(6, 4)]),
        (pb.ENCODING_YUYV, [(6, 8)]),
        (pb.ENCODING_NV12, [(6, 4), (3, 4)]),
    ],
)
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_padding_changes_nothing(encoding: int, planes: list[tuple[int, int]], color: Any) -> None:
    random = np.random.default_rng(5)
    stride = 32
    tight, padded = b"", b""
    for rows, row_bytes in planes:
        plane = random.integers(16, 236, (rows, row_bytes), np.uint8)
        tight += plane.tobytes()
        padded += np.pad(plane, ((0, 0), (0, stride - row_bytes)), constant_values=99).tobytes()
    without = decode(header(encoding, 4, 6), memoryview(tight), color, "full")
    with_padding = decode(header(encoding, 4, 6, stride_bytes=stride), memoryview(padded), color, "full")
    assert np.array_equal(without, with_padding)
    assert without.shape == ((6, 4) if color == "gray" else (6, 4, 3))


def test_channels_are_brought_into_the_order_that_the_network_wants() -> None:
    data = bytes(range(4 * 2 * 3))
    image = decode(header(pb.ENCODING_RGB8, 4, 2), memoryview(data), "rgb", "full")
    assert image.tobytes() == data
    assert np.array_equal(decode(header(pb.ENCODING_RGB8, 4, 2), memoryview(data), "bgr", "full"), image[..., ::-1])
    assert np.array_equal(decode(header(pb.ENCODING_BGR8, 4, 2), memoryview(data), "rgb", "full"), image[..., ::-1])


def test_grey_becomes_three_equal_channels() -> None:
    image = decode(header(pb.ENCODING_GRAY8, 4, 2), memoryview(bytes(range(8))), "rgb", "full")
    assert np.array_equal(image, np.repeat(np.arange(8, dtype=np.uint8).reshape(2, 4, 1), 3, axis=2))


@pytest.mark.parametrize(
    ("said", "wanted", "values", "expected"),
    [
        (LIMITED, "full", [16, 126, 235, 0, 255, 16, 16, 16], [0, 128, 255, 0, 255, 0, 0, 0]),
        (FULL, "limited", [0, 128, 255, 0, 0, 0, 0, 0], [16, 126, 235, 16, 16, 16, 16, 16]),
        (FULL, "full", list(range(8)), list(range(8))),
        (LIMITED, "limited", list(range(8)), list(range(8))),
    ],
)
def test_the_range_is_what_the_network_expects(said: int, wanted: Any, values: list[int], expected: list[int]) -> None:
    frame = header(pb.ENCODING_GRAY8, 4, 2, color_range=said)
    assert decode(frame, memoryview(bytes(values)), "gray", wanted).reshape(-1).tolist() == expected


def test_luma_of_a_limited_camera_is_stretched_for_a_grey_network() -> None:
    image = decode(header(pb.ENCODING_NV12, 4, 2), memoryview(nv12(235, 90, 90)), "gray", "full")
    assert (image == 255).all()


@pytest.mark.parametrize(("extension", "encoding"), [(".jpg", pb.ENCODING_JPEG), (".png", pb.ENCODING_PNG)])
def test_image_files_come_in_the_order_that_the_network_wants(extension: str, encoding: int) -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[..., 2] = 200  # red, since OpenCV writes BGR
    data = memoryview(cv2.imencode(extension, picture)[1].tobytes())
    rgb = decode(header(encoding, 32, 16), data, "rgb", "full")
    bgr = decode(header(encoding, 32, 16), data, "bgr", "full")
    assert abs(int(rgb[8, 8, 0]) - 200) <= 3
    assert np.array_equal(rgb, bgr[..., ::-1])
    assert decode(header(encoding, 32, 16), data, "gray", "full").shape == (16, 32)


@pytest.mark.parametrize("encoding", [pb.ENCODING_JPEG, pb.ENCODING_PNG])
@pytest.mark.parametrize("data", [b"", b"nonsense"])
def test_what_the_decoder_refuses_is_said(encoding: int, data: bytes) -> None:
    with pytest.raises(DecodeFailed, match="cannot be decoded"):
        decode(header(encoding, 4, 2), memoryview(data), "rgb", "full")


def test_a_file_that_decodes_to_another_size_is_refused() -> None:
    data = cv2.imencode(".png", np.zeros((2, 8, 3), np.uint8))[1].tobytes()
    with pytest.raises(DecodeFailed, match="decodes to 8x2, not 4x2"):
        decode(header(pb.ENCODING_PNG, 4, 2), memoryview(data), "rgb", "full")
