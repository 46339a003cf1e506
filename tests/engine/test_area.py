from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.area import Array, shrink, steps

NOISE = np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8)


def shrunk(image: Array, rows: int, columns: int) -> Array:
    out = np.full((rows, columns, *image.shape[2:]), 77, np.uint8)
    shrink(image, out)
    return out


def exact(image: Array, rows: int, columns: int) -> np.ndarray:
    """The mean over the covered area, not rounded."""

    def weights(side: int, wanted: int) -> np.ndarray:
        begin = np.arange(wanted)[:, None] * side / wanted
        pixel = np.arange(side)[None]
        return np.clip(np.minimum(pixel + 1, begin + side / wanted) - np.maximum(pixel, begin), 0, 1) * wanted / side

    down, across = weights(image.shape[0], rows), weights(image.shape[1], columns)
    return np.einsum("yh,xw,hw...->yx...", down, across, image.astype(np.float64), optimize=True)


def error(image: Array, rows: int, columns: int) -> float:
    return float(np.abs(shrunk(image, rows, columns) - exact(image, rows, columns)).mean())


@pytest.mark.parametrize("down", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("across", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("image", [NOISE, NOISE[..., 0].copy()], ids=["colour", "plane"])
def test_whole_factors_are_the_mean(down: int, across: int, image: Array) -> None:
    given = shrunk(image, 720 // down, 960 // across)
    assert np.abs(given - exact(image, 720 // down, 960 // across)).max() <= 2  # each step rounds


@pytest.mark.parametrize(
    ("factor", "bound"), [(1.2, 7), (1.5, 6), (1.875, 1.5), (2.4, 3), (2.8125, 3), (3.2, 3), (3.75, 7), (5.625, 4)]
)
def test_other_factors_are_near_it_even_for_white_noise(factor: float, bound: float) -> None:
    rows, columns = round(720 / factor), round(960 / factor)
    assert error(NOISE, rows, columns) < bound
    bilinear = cv2.resize(NOISE, (columns, rows), interpolation=cv2.INTER_LINEAR)
    others = np.abs(bilinear - exact(NOISE, rows, columns)).mean()
    assert error(NOISE, rows, columns) <= others + 0.1


@settings(max_examples=80)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 90), st.integers(1, 90), st.integers(0, 255))
def test_an_even_image_stays_even_whatever_the_sizes(
    height: int, width: int, rows: int, columns: int, value: int
) -> None:
    assert (shrunk(np.full((height, width, 3), value, np.uint8), rows, columns) == value).all()


@settings(max_examples=80)
@given(st.integers(8, 160), st.integers(8, 160), st.integers(8, 60), st.integers(8, 60))
def test_nothing_is_shifted(height: int, width: int, rows: int, columns: int) -> None:
    """A ramp keeps its middle, and its slope turned round gives the same picture turned round."""
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width)).astype(np.uint8)
    given = shrunk(ramp, rows, columns)
    assert abs(float(given.mean()) - float(ramp.mean())) < 2
    turned = shrunk(np.ascontiguousarray(ramp[::-1, ::-1]), rows, columns)[::-1, ::-1]
    assert np.abs(turned.astype(int) - given).max() <= 2


def test_the_steps_of_a_full_hd_frame() -> None:
    assert str(steps(1920, 640)) == "Steps(halvings=0, blurred=3, times=1)"
    assert str(steps(1080, 384)) == "Steps(halvings=0, blurred=3, times=1)"
    assert str(steps(1080, 540)) == "Steps(halvings=1, blurred=1, times=1)"
    assert str(steps(720, 384)) == "Steps(halvings=0, blurred=1, times=2)"
    assert str(steps(3840, 640)) == "Steps(halvings=1, blurred=3, times=1)"
    assert steps(1081, 100) is None
