"""From what a network's tensors hold on real frames to the range that 8 bits should cover."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.errors import BuildError
from build_engine.graph import Tensors
from build_engine.progress import Progress
from build_engine.quantize.statistics import watched
from build_engine.session import Session

Method = Literal["max", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = ("max", "percentile", "mse", "entropy")
KEPT_VALUES = 1 << 18
"""Values per tensor that are kept, drawn evenly from all samples; a 99.99 % quantile then rests on 26 of them."""
PERCENTILE = 99.99
SHRINK_STEPS = 60
"""Candidates of the search for the least squared error: the range at 100 % to 41 %, one per cent apart."""
LEVELS = 256

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """What the channels of one tensor `(N, C, ...)` were seen to hold.

    Attributes:
        lowest: `(C,)` smallest values of all samples.
        highest: `(C,)` largest values.
        of_values: `(n,)` the channel of each of the values that are kept.
    """

    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]
    of_values: npt.NDArray[np.unsignedinteger]

    @property
    def peaks(self) -> npt.NDArray[np.float64]:
        """Largest magnitudes, `(C,)`."""
        return np.maximum(-self.lowest, self.highest)


@dataclass(frozen=True)
class Range:
    """What one tensor was seen to hold.

    Attributes:
        lowest: Smallest value of all samples.
        highest: Largest value of all samples.
        values: `(n,)` some of the values, for the methods that weigh.
        channels: The same by channel, where that was asked for.
    """

    lowest: float
    highest: float
    values: Values
    channels: Channels | None = None

    def divided(self, scale: npt.NDArray[np.float64]) -> Range:
        """What a network would be seen to hold here that divides channels by `scale`, `(C,)`, all positive.

        Raises:
            ValueError: The channels were not watched.
        """
        if self.channels is None:
            raise ValueError("calibrate with this tensor among by_channel")
        known = self.channels
        channels = Channels(known.lowest / scale, known.highest / scale, known.of_values)
        values = (self.values / scale[known.of_values]).astype(np.float32)
        return Range(float(channels.lowest.min()), float(channels.highest.max()), values, channels)


Ranges = Mapping[str, Range]
Limits = Mapping[str, tuple[float, float]]
"""Lowest and highest value that 8 bits cover, by the name of a tensor."""


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Sequence[Tensors],
    progress: Progress,
    by_channel: Collection[str] = (),
) -> dict[str, Range]:
    """Watch tensors while the network computes the samples.

    Args:
        model: The float graph.
        tensors: Names of the tensors to watch.
        samples: Inputs by name, one entry of the batch each.
        progress: Told about every sample.
        by_channel: Those of the tensors, `(N, C, ...)`, whose channels are watched apart.

    Raises:
        BuildError: A tensor holds a NaN or an infinity; the tensor and the sample are named.
    """
    inputs = {value.name for value in model.graph.input}
    session = Session(watched(model, tensors), threads=0)
    per_sample = max(1, KEPT_VALUES // len(samples))
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    kept: dict[str, list[Values]] = {name: [] for name in tensors}
    apart: dict[str, list[Channels]] = {name: [] for name in tensors if name in by_channel}
    draw = np.random.default_rng(0)
    with progress.step("Calibrating", len(samples)) as advance:
        for number, sample in enumerate(samples):
            computed: dict[str, npt.NDArray[Any]] = {
                **sample,
                **session.run(sample, [name for name in tensors if name not in inputs]),
            }
            for name in tensors:
                flat = computed[name].reshape(-1)
                low, high = float(flat.min()), float(flat.max())
                if not np.isfinite(low + high):
                    raise BuildError(
                        f"tensor {name!r} holds a NaN or an infinity on calibration sample {number}",
                        remedy="find it with the model in FP32; a network that overflows cannot be quantized",
                    )
                lowest[name] = min(lowest.get(name, low), low)
                highest[name] = max(highest.get(name, high), high)
                chosen = draw.integers(0, flat.size, min(per_sample, flat.size))
                kept[name].append(flat[chosen].astype(np.float32))
                if name in apart:
                    apart[name].append(_by_channel(computed[name], chosen))
            advance()
    return {
        name: Range(lowest[name], highest[name], np.concatenate(kept[name]), _joined(apart.get(name, [])))
        for name in tensors
    }


def _by_channel(array: npt.NDArray[Any], chosen: npt.NDArray[np.int64]) -> Channels:
    """One sample's channels, and in which of them lie the values that were drawn."""
    rows = array.reshape(array.shape[0], array.shape[1], -1)
    found = (chosen // rows.shape[2] % rows.shape[1]).astype(np.min_scalar_type(rows.shape[1]))  # there are many
    return Channels(rows.min((0, 2)).astype(np.float64), rows.max((0, 2)).astype(np.float64), found)


def _joined(parts: Sequence[Channels]) -> Channels | None:
    if not parts:
        return None
    lowest, highest = np.min([one.lowest for one in parts], 0), np.max([one.highest for one in parts], 0)
    return Channels(lowest, highest, np.concatenate([one.of_values for one in parts]))


def choose(seen: Range, method: Method, *, symmetric: bool) -> tuple[float, float]:
    """The range that 8 bits should cover.

    Args:
        seen: What the tensor held.
        method: How to weigh clipping against rounding. `max` clips nothing; `percentile` clips 0.01 % of the values;
            `mse` has the least squared error; `entropy` loses the least information (Kullback-Leibler, as TensorRT's
            calibrator did).
        symmetric: Whether the range must be `(-t, t)`, as TensorRT wants it.

    Returns:
        `(low, high)`, with `low <= 0 <= high`: zero, which is what convolutions pad with, is always exact.
    """
    low, high = min(seen.lowest, 0.0), max(seen.highest, 0.0)
    if symmetric:
        top = max(-low, high)
        top = _METHODS[method](np.abs(seen.values), 0.0, top, LEVELS // 2 - 1)[1]
        return -top, top
    return _METHODS[method](seen.values, low, high, LEVELS - 1)


def choose_limits(ranges: Ranges, method: Method, *, symmetric: bool) -> dict[str, tuple[float, float]]:
    """The range that 8 bits should cover, for every tensor (see `choose`)."""
    return {name: choose(seen, method, symmetric=symmetric) for name, seen in ranges.items()}


def _max(_values: Values, low: float, high: float, _steps: int) -> tuple[float, float]:
    return low, high


def _percentile(values: Values, low: float, high: float, _steps: int) -> tuple[float, float]:
    bottom, top = np.quantile(values, [1 - PERCENTILE / 100, PERCENTILE / 100])
    return max(low, min(float(bottom), 0.0)), min(high, max(float(top), 0.0))


def _mse(values: Values, low: float, high: float, steps: int) -> tuple[float, float]:
    """Shrink the upper end, then the lower: the two hardly depend on one another."""
    values = values[:: max(1, values.size // 32768)]

    def error(bottom: float, top: float) -> float:
        step = max(top - bottom, 1e-12) / steps
        zero = round(-bottom / step)
        rounded = (np.clip(np.round(values / step) + zero, 0, steps) - zero) * step
        return float(np.square(rounded - values, dtype=np.float64).sum())

    shares = [1 - index / 100 for index in range(SHRINK_STEPS)]
    top = min((high * share for share in shares), key=lambda value: error(low, value))
    bottom = min((low * share for share in shares), key=lambda value: error(value, top)) if low < 0 else 0.0
    return bottom, top


def _entropy(values: Values, low: float, high: float, _steps: int) -> tuple[float, float]:
    """The threshold on magnitudes that loses least information; either end is cut there.

    Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    magnitudes = np.abs(values)
    bins = 2048
    counts, edges = np.histogram(magnitudes, bins, (0.0, max(-low, high, 1e-12)))
    counts[0] = counts[1]  # zeros are exact at any threshold; after a ReLU they would outweigh everything
    levels = 128
    best, threshold = np.inf, edges[-1]
    for size in range(levels, bins + 1, 16):
        reference = counts[:size].astype(np.float64)
        groups = np.minimum(np.arange(size) * levels // size, levels - 1)
        filled = reference > 0
        totals = np.bincount(groups, reference, levels)
        members = np.bincount(groups, filled, levels)
        candidate = np.where(filled, (totals / np.maximum(members, 1))[groups], 0.0)
        reference[-1] += counts[size:].sum()
        divergence = _divergence(reference, candidate)
        if divergence < best:
            best, threshold = divergence, edges[size]
    return max(low, -float(threshold)), min(high, float(threshold))


def _divergence(reference: npt.NDArray[np.float64], candidate: npt.NDArray[np.float64]) -> float:
    p, q = reference / max(reference.sum(), 1e-12), candidate / max(candidate.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


_METHODS: Mapping[Method, Callable[[Values, float, float, int], tuple[float, float]]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
