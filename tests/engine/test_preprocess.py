from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.manifest import Preprocessing
from engine.preprocess import CROP_UNIT, SMALL_CROP_UNIT, SMALL_SIDE, Crop, place, resize_into

SIDES = st.integers(1, 4000)
RESIZES = st.sampled_from(["letterbox", "stretch", "crop"])


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
    st.integers(1, 1500),
    st.integers(1, 1500),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5),
    RESIZES,
)
def test_boxes_come_back_to_where_they_were(
    frame_width: int, frame_height: int, width: int, height: int, corners: Any, resize: str
) -> None:
    placement = place(frame_width, frame_height, spec(width, height, resize=resize))
    boxes = np.array(corners) * np.array([frame_width, frame_height] * 2)
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    offset = np.array([placement.offset_x, placement.offset_y] * 2)
    back = placement.to_frame((boxes * scale + offset).astype(np.float32))
    np.testing.assert_allclose(back, boxes, atol=1e-3 * max(frame_width, frame_height), rtol=1e-4)


@settings(max_examples=60)
@given(
    st.integers(40, 700),
    st.integers(40, 700),
    st.integers(40, 400),
    st.integers(40, 400),
    RESIZES,
    st.tuples(st.floats(0.3, 0.45), st.floats(0.3, 0.45), st.floats(0.55, 0.7), st.floats(0.55, 0.7)),
)
@example(369, 41, 47, 40, "letterbox", (0.375, 0.375, 0.625, 0.59375))
def test_a_box_that_is_seen_is_where_it_was_drawn(
    frame_width: int, frame_height: int, width: int, height: int, resize: str, corners: Any
) -> None:
    """Drawn into the frame, found again in the network input, and mapped back."""
    network = spec(width, height, resize=resize, color="gray", pad_value=0)
    placement = place(frame_width, frame_height, network)
    used = placement.crop or Crop(0, 0, frame_width, frame_height, frame_width, frame_height)
    x_min, x_max = (round(used.x + used.width * at) for at in corners[::2])
    y_min, y_max = (round(used.y + used.height * at) for at in corners[1::2])
    frame = np.zeros((frame_height, frame_width), np.uint8)
    frame[y_min:y_max, x_min:x_max] = 255
    out = np.zeros((height, width, 1), np.uint8)
    assert resize_into(frame, network, out) == placement
    seen = out[..., 0] / 255
    columns, rows = seen.max(axis=0), seen.max(axis=1)
    if columns.max() < 0.9 or rows.max() < 0.9:
        return  # too thin to survive the resize

    def edges(profile: Any) -> tuple[float, float]:
        """Where it rises and falls, to a fraction of a pixel: bright cells hold the part of them that is covered."""
        middle, profile = int(np.argmax(profile)), profile / profile.max()  # along the other axis it may be thin
        return middle - float(profile[:middle].sum()), middle + float(profile[middle:].sum())

    (left, right), (top, bottom) = edges(columns), edges(rows)
    (found,) = placement.to_frame(np.array([[left, top, right, bottom]], np.float32))
    pixel = np.array([1 / placement.scale_x, 1 / placement.scale_y] * 2)
    assert (np.abs(found - [x_min, y_min, x_max, y_max]) <= 0.75 * np.maximum(pixel, 1) + 0.75).all()


@given(SIDES, SIDES, st.integers(1, 1500), st.integers(1, 1500))
def test_a_crop_is_the_largest_middle_part_of_the_aspect_ratio(
    frame_width: int, frame_height: int, width: int, height: int
) -> None:
    placement = place(frame_width, frame_height, spec(width, height, resize="crop"))
    assert (placement.width, placement.height) == (width, height)
    crop = placement.crop
    assert crop is not None
    assert crop.width == frame_width or crop.height == frame_height
    for begin, used, side in ((crop.x, crop.width, frame_width), (crop.y, crop.height, frame_height)):
        unit = CROP_UNIT if side >= SMALL_SIDE else SMALL_CROP_UNIT
        assert begin % unit == 0
        assert used >= 1
        assert 0 <= begin <= side - used
        assert abs(begin + used / 2 - side / 2) <= unit
    exact = min(frame_width, frame_height * width / height), min(frame_height, frame_width * height / width)
    assert abs(crop.width - exact[0]) <= CROP_UNIT
    assert abs(crop.height - exact[1]) <= CROP_UNIT


def test_a_crop_of_a_subsampled_plane_is_the_same_crop() -> None:
    crop = place(1920, 1080, spec(640, 640, resize="crop")).crop
    assert crop == Crop(416, 0, 1080, 1080, 1920, 1080)
    full = np.arange(1920, dtype=np.int64)[None].repeat(1080, axis=0)
    for divisor in (2, 4, 8):
        plane = full[::divisor, ::divisor]
        np.testing.assert_array_equal(crop.of(plane)[0] // divisor, np.arange(416, 1496, divisor) // divisor)


@pytest.mark.parametrize("size", [(960, 540), (640, 360), (640, 384), (320, 180), (321, 97), (640, 90), (100, 540)])
def test_area_is_close_to_the_exact_mean(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (18, 32, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC) + random.normal(0, 3, (1080, 1920, 3))
    frame = np.clip(smooth, 0, 255).astype(np.uint8)
    out = np.zeros((size[1], size[0], 3), np.uint8)
    resize_into(frame, spec(*size, resize="stretch"), out)
    exact = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    assert np.abs(out.astype(int) - exact).mean() < 1.5


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


@settings(max_examples=60)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    RESIZES,
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
