from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.errors import BuildError
from build_engine.progress import Silent
from build_engine.quantize.calibration import METHODS, Method, Range, calibrate, choose
from tests.build_engine.networks import HEIGHT, WIDTH


def seen(values: np.ndarray) -> Range:
    return Range(float(values.min()), float(values.max()), values.astype(np.float32))


def error(values: np.ndarray, low: float, high: float, steps: int) -> float:
    step = (high - low) / steps
    zero = round(-low / step)
    return float(np.mean(((np.clip(np.round(values / step) + zero, 0, steps) - zero) * step - values) ** 2))


OUTLIER = np.append(np.random.default_rng(0).exponential(1.0, 100_000), 400.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_range_holds_zero_and_stays_inside_what_was_seen(method: Method, symmetric: bool) -> None:
    values = np.random.default_rng(0).normal(0.5, 1.0, 50_000)
    low, high = choose(seen(values), method, symmetric=symmetric)
    assert low <= 0 <= high
    top = np.abs(values).max()
    assert -top <= low and high <= top + 1e-6
    assert not symmetric or low == -high


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_one_outlier_does_not_take_the_bits_of_all_others(method: Method) -> None:
    _, high = choose(seen(OUTLIER), method, symmetric=False)
    assert high < 250
    assert choose(seen(OUTLIER), "max", symmetric=False) == (0.0, 400.0)


def test_least_squares_beats_the_maximum() -> None:
    values = np.random.default_rng(0).laplace(0, 1, 50_000)
    low, high = choose(seen(values), "mse", symmetric=True)
    largest = float(np.abs(values).max())
    assert error(values, low, high, 254) < error(values, -largest, largest, 254)


def test_a_tensor_that_is_always_zero_has_a_range(  # a dead channel after ReLU
) -> None:
    for method in METHODS:
        for symmetric in (True, False):
            low, high = choose(seen(np.zeros(100)), method, symmetric=symmetric)
            assert low <= 0 <= high


def test_calibration_sees_the_extremes_of_every_sample(classifier: onnx.ModelProto) -> None:
    samples = [{"image": np.full((1, 3, HEIGHT, WIDTH), value, np.float32)} for value in (-3.0, 1.0, 7.0)]
    ranges = calibrate(classifier, ("image", "output"), samples, Silent())
    assert (ranges["image"].lowest, ranges["image"].highest) == (-3.0, 7.0)
    assert ranges["output"].highest > ranges["output"].lowest


def test_a_nan_is_named_with_its_tensor(classifier: onnx.ModelProto) -> None:
    with pytest.raises(BuildError, match="'image' holds a NaN or an infinity on calibration sample 0"):
        calibrate(classifier, ("image",), [{"image": np.full((1, 3, HEIGHT, WIDTH), np.nan, np.float32)}], Silent())
