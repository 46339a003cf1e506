from __future__ import annotations

import pytest

from protos.monocoque.v1 import camera_pb2 as pb
from server.stream.layout import check_frame, check_geometry, largest_frame_bytes, raw_bytes

RGB8, BGR8, GRAY8, NV12, YUYV = (
    pb.ENCODING_RGB8,
    pb.ENCODING_BGR8,
    pb.ENCODING_GRAY8,
    pb.ENCODING_NV12,
    pb.ENCODING_YUYV,
)


@pytest.mark.parametrize(
    ("encoding", "stride_bytes", "needed"),
    [
        (RGB8, 0, 6 * 4 * 3),
        (BGR8, 32, 32 * 4),
        (GRAY8, 0, 6 * 4),
        (GRAY8, 8, 8 * 4),
        (NV12, 0, 6 * 4 * 3 // 2),
        (NV12, 8, 8 * 6),
        (YUYV, 0, 6 * 4 * 2),
        (YUYV, 16, 16 * 4),
        (pb.ENCODING_GRAY16, 0, 6 * 4 * 2),
        (pb.ENCODING_GRAY16, 13, 13 * 4),
        (pb.ENCODING_BAYER_RGGB8, 0, 6 * 4),
        (pb.ENCODING_BAYER_RGGB12, 0, 6 * 4 * 2),
        (pb.ENCODING_BAYER_RGGB12P, 0, 9 * 4),
        (pb.ENCODING_BAYER_RGGB12P, 10, 10 * 4),
        (pb.ENCODING_BAYER_RGGB16, 16, 16 * 4),
    ],
)
def test_bytes_of_a_frame_of_6_by_4(encoding: int, stride_bytes: int, needed: int) -> None:
    assert raw_bytes(encoding, 6, 4, stride_bytes) == needed
    camera = pb.Camera(id="front", encoding=encoding, width=6, height=4)  # type: ignore[arg-type]
    header = pb.FrameHeader(encoding=encoding, width=6, height=4, stride_bytes=stride_bytes)  # type: ignore[arg-type]
    assert check_frame(header, memoryview(bytes(needed)), camera, 1000) is None
    for wrong in (needed - 1, needed + 1):
        fault = check_frame(header, memoryview(bytes(wrong)), camera, 1000)
        assert fault is not None
        assert f"takes {needed} bytes, {wrong} came" in fault


def test_a_frame_beyond_the_limit_names_it_and_the_flag() -> None:
    camera = pb.Camera(id="front", encoding=RGB8, width=6, height=4)
    header = pb.FrameHeader(encoding=RGB8, width=6, height=4)
    fault = check_frame(header, memoryview(bytes(101)), camera, 100)
    assert fault is not None
    assert "101 bytes" in fault
    assert "100 are accepted" in fault
    assert "--max-frame" in fault


def test_the_largest_frame_leaves_room_for_padded_rows() -> None:
    assert largest_frame_bytes(1920, 1080) == 5888 * 1080
    assert largest_frame_bytes(1920, 1080) >= raw_bytes(RGB8, 1920, 1080, 5888)


@pytest.mark.parametrize(
    ("encoding", "width", "height"),
    [
        (NV12, 5, 4),
        (NV12, 6, 3),
        (YUYV, 5, 4),
        (RGB8, 0, 4),
        (pb.ENCODING_BAYER_RGGB8, 6, 5),
        (pb.ENCODING_BAYER_RGGB12P, 5, 6),
        (pb.ENCODING_BAYER_RGGB16, 2, 8),
        (pb.ENCODING_H264, 0, 8),
    ],
)
def test_sizes_that_an_encoding_cannot_have(encoding: int, width: int, height: int) -> None:
    assert check_geometry(encoding, width, height) is not None


def test_yuyv_may_have_an_odd_number_of_rows() -> None:
    assert check_geometry(YUYV, 6, 3) is None


def test_an_access_unit_is_as_long_as_it_is_but_not_empty() -> None:
    camera = pb.Camera(id="front", encoding=pb.ENCODING_H265, width=6, height=4)
    header = pb.FrameHeader(encoding=pb.ENCODING_H265, width=6, height=4)
    assert check_frame(header, memoryview(b"\0\0\1"), camera, 1000) is None
    assert check_frame(header, memoryview(b""), camera, 1000) == "the H265 access unit is empty"
