"""Cross-layer equalization: a channel is scaled where it is written, and scaled back where it is read.

Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv 1906.04721, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from build_engine.graph import constants, consumers
from build_engine.quantize.weights import attributes, replace_constants

HOMOGENEOUS = frozenset(
    {
        *("AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
        *("LeakyRelu", "MaxPool", "PRelu", "Relu", "Resize"),
    }
)
"""f(s x) = s f(x) for every s > 0, channel by channel. Clip, Sigmoid and SiLU are not."""
ROUNDS = 20
LARGEST_SCALE = 64.0
"""A channel is scaled by at most this much per round: dead ones would go to infinity."""

Peaks = Mapping[str, npt.NDArray[np.float64]]
"""Largest magnitude per channel, `(C,)`, by the name of an activation."""
Scales = Mapping[str, npt.NDArray[np.float64]]
"""What channels were divided by, `(C,)`, by the name of an activation; those that are not named were left alone."""


@dataclass
class Channels:
    """Tensors whose channels can only be scaled together, and the convolutions at their ends.

    Attributes:
        tensors: Names of the activations.
        producers: Convolutions that write one of them: `(weight, bias or None)`.
        readers: Convolutions that read one of them: `(weight, groups)`.
        size: Number of channels.
    """

    tensors: list[str] = field(default_factory=list)
    producers: list[tuple[str, str | None]] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)
    size: int = 0


def equalizable(model: onnx.ModelProto) -> list[Channels]:
    """Find the channels that may be scaled without changing what the network computes.

    1. Everything that writes them is a convolution with constant weights, or homogeneous in what it reads.
    2. Everything that reads them is one of these too, or an addition whose other side is scaled alike.
    3. None of them leaves the network, and no weight is used twice.

    Depthwise convolutions end one such set and begin the next, so scales travel across them.

    Args:
        model: A fused float graph with inferred shapes.
    """
    fixed = constants(model)
    uses = consumers(model)
    groups: dict[str, Channels] = {}
    boundary = {value.name for value in (*model.graph.input, *model.graph.output)}
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    convolutions = []
    barred = set(boundary)
    for node in model.graph.node:
        if node.op_type == "Conv" and _own_weights(node, fixed, uses):
            convolutions.append(node)
            continue
        data = [name for name in node.input if name and name not in fixed]
        joins = node.op_type in HOMOGENEOUS and len(data) == 1
        joins &= attributes(node).get("coordinate_transformation_mode") != b"tf_crop_and_resize"  # it extrapolates
        joins |= node.op_type == "Add" and len(data) == 2 and _same_shape(model, data)
        if joins:
            for name in (*data[1:], node.output[0]):
                parent[find(name)] = find(data[0])
            barred.update(node.output[1:])
        else:
            barred.update((*data, *node.output))
    for node in convolutions:
        weight, rank = fixed[node.input[1]], fixed[node.input[1]].ndim
        if rank < 3:
            continue
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        made = groups.setdefault(find(node.output[0]), Channels())
        made.producers.append((node.input[1], bias))
        made.size = weight.shape[0]
        taken = groups.setdefault(find(node.input[0]), Channels())
        split = int(attributes(node).get("group", 1))
        taken.readers.append((node.input[1], split))
    for name in list(parent) + [n for node in convolutions for n in (node.input[0], node.output[0])]:
        root = find(name)
        if root in groups and name not in groups[root].tensors:
            groups[root].tensors.append(name)
    stopped = {find(name) for name in barred}
    return [
        group for root, group in groups.items() if root not in stopped and group.producers and group.readers
        if all(fixed[weight].shape[1] * split == group.size for weight, split in group.readers)
        if all(fixed[weight].shape[0] == group.size for weight, _ in group.producers)
    ]  # fmt: skip


def equalize(model: onnx.ModelProto, peaks: Peaks | None = None) -> tuple[onnx.ModelProto, Scales]:
    """Scale channels so that both ends of each use their 8 bits alike.

    `s = sqrt(r1 / r2)`: the writer's channel is divided by s and the reader's multiplied by it, which leaves both at
    `sqrt(r1 r2)`. The function of the network is unchanged but for float rounding.

    Args:
        model: A fused float graph with inferred shapes.
        peaks: What activations reach per channel. Then r1 is that: with a weight scale per output channel, as here,
            rows of weights have no range to share, but activations do. Without it r1 is the row of weights, as in the
            paper, which suits one scale per weight tensor.

    Returns:
        The equalized graph, and what the channels of its activations were divided by.
    """
    groups = equalizable(model)
    arrays = {name: array.astype(np.float64) for name, array in constants(model).items()}
    total = [np.ones(group.size) for group in groups]
    for _ in range(ROUNDS):
        for index, group in enumerate(groups):
            step = _step(group, arrays, total[index], peaks)
            total[index] *= step
            _scale(group, arrays, step)
    scales = {name: scale for group, scale in zip(groups, total, strict=True) for name in group.tensors}
    return rescale(model, groups, total), scales


def rescale(
    model: onnx.ModelProto, groups: Sequence[Channels], scales: Sequence[npt.NDArray[np.float64]]
) -> onnx.ModelProto:
    """Divide channels by scales, `(C,)` for each of `groups`, and undo it where they are read."""
    arrays = {name: array.astype(np.float64) for name, array in constants(model).items()}
    touched = {name for group in groups for pair in group.producers for name in pair if name}
    touched |= {weight for group in groups for weight, _ in group.readers}
    for group, scale in zip(groups, scales, strict=True):
        _scale(group, arrays, scale)
    return replace_constants(model, {name: arrays[name].astype(np.float32) for name in touched})


def _scale(group: Channels, arrays: dict[str, npt.NDArray[Any]], scale: npt.NDArray[np.float64]) -> None:
    for weight, bias in group.producers:
        arrays[weight] /= _rows(scale, arrays[weight])
        if bias is not None:
            arrays[bias] /= scale
    for weight, split in group.readers:
        arrays[weight] *= _columns(scale, arrays[weight], split)


def _step(
    group: Channels, arrays: Mapping[str, npt.NDArray[Any]], scale: npt.NDArray[np.float64], peaks: Peaks | None
) -> npt.NDArray[np.float64]:
    read = np.max([_column_peaks(arrays[weight], split) for weight, split in group.readers], axis=0)
    known = [peaks[name] for name in group.tensors if peaks and name in peaks]
    if known:
        written = np.max(known, axis=0) / scale
    else:
        written = np.max([_row_peaks(arrays[weight]) for weight, _ in group.producers], axis=0)
    alive = (read > 1e-12) & (written > 1e-12)
    wanted = np.sqrt(np.where(alive, written, 1.0) / np.where(alive, read, 1.0))
    limited: npt.NDArray[np.float64] = np.clip(wanted, 1 / LARGEST_SCALE, LARGEST_SCALE)
    return limited


def _row_peaks(weight: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    peaks: npt.NDArray[np.float64] = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
    return peaks


def _column_peaks(weight: npt.NDArray[Any], split: int) -> npt.NDArray[np.float64]:
    """Largest magnitude that meets each input channel; `weight` is `(C_out, C_in / split, ...)`."""
    parts = np.abs(weight).reshape(split, weight.shape[0] // split, weight.shape[1], -1)
    peaks: npt.NDArray[np.float64] = parts.max(axis=(1, 3)).reshape(-1)
    return peaks


def _rows(scale: npt.NDArray[np.float64], weight: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _columns(scale: npt.NDArray[np.float64], weight: npt.NDArray[Any], split: int) -> npt.NDArray[np.float64]:
    """`(C_in,)` as a factor of `(C_out, C_in / split, ...)`."""
    per_row = np.repeat(scale.reshape(split, -1), weight.shape[0] // split, axis=0)
    return per_row.reshape(*per_row.shape, *[1] * (weight.ndim - 2))


def _own_weights(
    node: onnx.NodeProto, fixed: Mapping[str, npt.NDArray[Any]], uses: Mapping[str, list[onnx.NodeProto]]
) -> bool:
    return all(name in fixed and len(uses[name]) == 1 for name in node.input[1:] if name)


def _same_shape(model: onnx.ModelProto, names: list[str]) -> bool:
    shapes = {
        value.name: str(value.type.tensor_type.shape)
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    found = [shapes.get(name) for name in names]
    return found[0] is not None and found[0] == found[1]
