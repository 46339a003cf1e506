from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.manifest import Preprocessing
from engine.preprocess import place, resize_into

SIDES = st.integers(1, 4000)


def spec(width: int = 64, height: int = 48, **changes: Any) -> Preprocessing:
    return Preprocessing(**({"input": "images", "color": "rgb", "width": width, "height": height} | changes))


@given(SIDES, SIDES, st.integers(1, 1500), st.integers(1, 1500), st.sampled_from(["letterbox", "stretch"]))
def test_a_frame_lies_inside_the_network_input(
    frame_width: int, frame_height: int, width: int, height: int, resize: str
) -> None:
    placement = place(frame_width, frame_height, spec(width, height, resize=resize))
    assert 1 <= placement.width <= width
    assert 1 <= placement.height <= height
    assert 0 <= placement.offset_x <= width - placement.width
    assert 0 <= placement.offset_y <= height - placement.height
    assert placement.width == width or placement.height == height


@given(
    SIDES,
    SIDES,
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5),
    st.sampled_from(["letterbox", "stretch"]),
)
def test_boxes_come_back_to_where_they_were(frame_width: int, frame_height: int, corners: Any, resize: str) -> None:
    placement = place(frame_width, frame_height, spec(640, 384, resize=resize))
    boxes = np.array(corners) * np.array([frame_width, frame_height] * 2)
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    offset = np.array([placement.offset_x, placement.offset_y] * 2)
    back = placement.to_frame((boxes * scale + offset).astype(np.float32))
    np.testing.assert_allclose(back, boxes, atol=1e-3 * max(frame_width, frame_height), rtol=1e-4)


def test_letterbox_keeps_the_aspect_ratio_and_fills_the_rest() -> None:
    out = np.zeros((48, 64, 3), np.uint8)
    placement = resize_into(np.full((100, 400, 3), 200, np.uint8), spec(pad_value=7), out)
    assert (placement.width, placement.height) == (64, 16)
    assert (placement.offset_x, placement.offset_y) == (0, 16)
    assert (out[:16] == 7).all()
    assert (out[16:32] == 200).all()
    assert (out[32:] == 7).all()


def test_stretch_covers_everything() -> None:
    out = np.zeros((48, 64, 3), np.uint8)
    placement = resize_into(np.full((100, 400, 3), 200, np.uint8), spec(resize="stretch"), out)
    assert (out == 200).all()
    assert (placement.scale_x, placement.scale_y) == (64 / 400, 48 / 100)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["letterbox", "stretch"]),
    st.sampled_from(["area", "bilinear", "nearest", "bicubic"]),
    st.sampled_from(["rgb", "gray"]),
)
def test_every_byte_is_written_whatever_the_geometry(
    frame_width: int, frame_height: int, resize: str, kernel: Any, color: str
) -> None:
    channels = 1 if color == "gray" else 3
    frame = np.full((frame_height, frame_width, channels), 50, np.uint8)
    batch = np.full((2, 48, 64, channels), 255, np.uint8)
    resize_into(frame, spec(resize=resize, kernel=kernel, color=color, pad_value=60), batch[0])
    assert set(np.unique(batch[0])) <= {50, 60}
    assert (batch[1] == 255).all()


def test_a_frame_of_the_right_size_is_copied_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    out = np.zeros_like(frame)
    resize_into(frame, spec(), out)
    np.testing.assert_array_equal(out, frame)


@pytest.mark.parametrize("flip", [False, True])
def test_the_kernel_is_the_manifests(flip: bool) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    view = frame[:, :, ::-1] if flip else frame
    kernels = {
        "area": cv2.INTER_AREA,
        "bilinear": cv2.INTER_LINEAR,
        "nearest": cv2.INTER_NEAREST,
        "bicubic": cv2.INTER_CUBIC,
    }
    for kernel, code in kernels.items():
        out = np.zeros((48, 64, 3), np.uint8)
        resize_into(view, spec(kernel=kernel), out)
        np.testing.assert_array_equal(out, cv2.resize(np.ascontiguousarray(view), (64, 48), interpolation=code))


def test_area_is_bilinear_where_it_enlarges() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    out = np.zeros((48, 64, 3), np.uint8)
    resize_into(frame, spec(), out)
    np.testing.assert_array_equal(out, cv2.resize(frame, (64, 48), interpolation=cv2.INTER_LINEAR))


def test_grey_frames_have_two_axes_or_three() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
    left, right = np.zeros((48, 64, 1), np.uint8), np.zeros((48, 64, 1), np.uint8)
    resize_into(frame, spec(color="gray"), left)
    resize_into(frame[:, :, None], spec(color="gray"), right)
    np.testing.assert_array_equal(left, right)
    assert left.any()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((48, 64, 3), np.float32),
        np.zeros((1, 48, 64, 3), np.uint8),
        np.zeros((48,), np.uint8),
    ],
    ids=str,
)
def test_a_frame_that_does_not_fit_is_refused(frame: Any) -> None:
    out = np.full((48, 64, 3), 9, np.uint8)
    with pytest.raises(ValueError, match=r"a frame .* for a network input uint8\[48, 64, 3\]"):
        resize_into(frame, spec(), out)
    assert (out == 9).all()


def test_a_slot_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"for a network input uint8\[40, 64, 3\]"):
        resize_into(np.zeros((48, 64, 3), np.uint8), spec(), np.zeros((40, 64, 3), np.uint8))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_frame_without_pixels_has_no_place(size: Any) -> None:
    with pytest.raises(ValueError, match="a frame of"):
        place(*size, spec())
