"""What a network's activations look like to its layers: peaks per channel, and the patches that a convolution reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.graph import Tensors, constants, feeds
from build_engine.progress import Progress
from build_engine.quantize.weights import attributes
from build_engine.session import Session

POSITIONS = 256
"""Places per sample from which second moments are taken, evenly over the map."""
LARGEST_PATCH = 2400
"""Values of a patch beyond which second moments are not kept: they grow with the square."""

Array = npt.NDArray[Any]


@dataclass
class Patches:
    """What a convolution's window saw, over all samples.

    With `P = C_in / groups * kH * kW` values in the order of a weight's row:

    Attributes:
        mean: `(groups, P)`, over every place of the output, padding counted as the zeros it is.
        moments: `(groups, P, P)`, mean of the outer products; None for large patches.
    """

    mean: npt.NDArray[np.float64]
    moments: npt.NDArray[np.float64] | None


def watched(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same graph with some activations among its outputs."""
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    have = {value.name for value in (*fresh.graph.output, *fresh.graph.input)}
    fresh.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in have)
    return fresh


def channel_peaks(
    model: onnx.ModelProto, names: Sequence[str], samples: Sequence[Tensors], progress: Progress
) -> dict[str, npt.NDArray[np.float64]]:
    """Largest magnitude per channel, `(C,)`, of activations `(N, C, ...)` over all samples."""
    inputs = {value.name for value in feeds(model)}
    wanted = [name for name in dict.fromkeys(names) if name not in inputs]
    session = Session(watched(model, wanted), threads=0)
    peaks: dict[str, npt.NDArray[np.float64]] = {}
    with progress.step("Measuring channels", len(samples)) as advance:
        for sample in samples:
            for name, array in session.run(sample, wanted).items():
                found = np.abs(array).max(axis=(0, *range(2, array.ndim))).astype(np.float64)
                peaks[name] = np.maximum(peaks[name], found) if name in peaks else found
            advance()
    return peaks


def patches(
    model: onnx.ModelProto,
    layers: Sequence[str],
    samples: Sequence[Tensors],
    progress: Progress,
    *,
    moments: bool,
) -> dict[str, Patches]:
    """What each convolution's window sees on the samples.

    Args:
        model: The float graph.
        layers: Names of nodes; those that are no two-dimensional convolution are left out.
        samples: Inputs by name.
        progress: Told about every sample.
        moments: Whether second moments are wanted too.
    """
    fixed = constants(model)
    nodes = [
        node
        for node in model.graph.node
        if node.name in set(layers) and node.op_type == "Conv" and fixed[node.input[1]].ndim == 4
    ]
    inputs = {value.name for value in feeds(model)}
    names = [node.input[0] for node in nodes if node.input[0] not in inputs]
    session = Session(watched(model, names), threads=0)
    found: dict[str, Patches] = {}
    with progress.step("Measuring layers' inputs", len(samples)) as advance:
        for sample in samples:
            values: Mapping[str, Array] = {**sample, **session.run(sample, list(dict.fromkeys(names)))}
            for node in nodes:
                _accumulate(found, node, fixed[node.input[1]], values[node.input[0]], len(samples), moments)
            advance()
    return found


def _accumulate(
    found: dict[str, Patches], node: onnx.NodeProto, weight: Array, data: Array, count: int, moments: bool
) -> None:
    given = attributes(node)
    groups = int(given.get("group", 1))
    kernel = weight.shape[2:]
    size = weight.shape[1] * kernel[0] * kernel[1]
    padded, strides, dilations = _padded(data, kernel, given)
    rows, columns = (
        (padded.shape[2 + axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1 for axis in range(2)
    )
    taps = [(dilations[0] * i, dilations[1] * j) for i in range(kernel[0]) for j in range(kernel[1])]
    mean = np.stack(
        [
            padded[:, :, y : y + strides[0] * rows : strides[0], x : x + strides[1] * columns : strides[1]].mean(
                (0, 2, 3)
            )
            for y, x in taps
        ],
        axis=-1,
    )
    keep = moments and size <= LARGEST_PATCH
    if node.name not in found:
        found[node.name] = Patches(np.zeros((groups, size)), np.zeros((groups, size, size)) if keep else None)
    entry = found[node.name]
    entry.mean += mean.reshape(groups, size) / count
    if entry.moments is not None:
        chosen = np.linspace(0, rows * columns - 1, min(POSITIONS, rows * columns)).round().astype(int)
        y, x = strides[0] * (chosen // columns), strides[1] * (chosen % columns)
        picked = np.stack([padded[:, :, y + dy, x + dx] for dy, dx in taps], axis=-1)  # (N, C, places, kH * kW)
        picked = picked.transpose(0, 2, 1, 3).reshape(-1, groups, size).astype(np.float32)
        for group in range(groups):
            part = picked[:, group]
            entry.moments[group] += (part.T @ part).astype(np.float64) / (len(part) * count)


def _padded(data: Array, kernel: Sequence[int], given: Mapping[str, Any]) -> tuple[Array, Sequence[int], Sequence[int]]:
    """A map with a convolution's zeros around it, the strides and the dilations."""
    dilations, strides = given.get("dilations", [1, 1]), given.get("strides", [1, 1])
    pads = list(given.get("pads", [0] * 4))
    automatic = given.get("auto_pad", b"NOTSET").decode()
    if automatic.startswith("SAME"):
        for axis in range(2):
            length, reach = data.shape[2 + axis], dilations[axis] * (kernel[axis] - 1) + 1
            need = max(0, (-(-length // strides[axis]) - 1) * strides[axis] + reach - length)
            small, large = need // 2, need - need // 2
            pads[axis], pads[axis + 2] = (small, large) if automatic == "SAME_UPPER" else (large, small)
    return np.pad(data, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))), strides, dilations
