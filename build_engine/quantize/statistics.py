"""What a network's activations look like to its layers: the patches that a convolution reads."""

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
PLACES_AT_ONCE = 1024
"""Places whose second moments are added in one product: of fewer, adding them takes longer than the product."""
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

    def divided(self, scale: npt.NDArray[np.float64]) -> Patches:
        """What the window would see of a map whose channels are divided by `scale`, `(C_in,)`."""
        groups, size = self.mean.shape
        factor = 1 / np.repeat(scale.reshape(groups, -1), groups * size // len(scale), axis=1)
        moments = None if self.moments is None else self.moments * factor[:, :, None] * factor[:, None, :]
        return Patches(self.mean * factor, moments)


def watched(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same graph with some activations among its outputs."""
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    have = {value.name for value in (*fresh.graph.output, *fresh.graph.input)}
    fresh.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in have)
    return fresh


def patches(
    model: onnx.ModelProto,
    layers: Sequence[str],
    samples: Sequence[Tensors],
    progress: Progress,
) -> dict[str, Patches]:
    """What each convolution's window sees on the samples.

    Args:
        model: The float graph.
        layers: Names of nodes; those that are no two-dimensional convolution are left out.
        samples: Inputs by name.
        progress: Told about every sample.
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
    found = {node.name: _Growing(node, fixed[node.input[1]], len(samples)) for node in nodes}
    with progress.step("Measuring layers' inputs", len(samples)) as advance:
        for sample in samples:
            values: Mapping[str, Array] = {**sample, **session.run(sample, list(dict.fromkeys(names)))}
            for node in nodes:
                found[node.name].add(values[node.input[0]])
            advance()
    return {name: one.finish() for name, one in found.items()}


class _Growing:
    """The patches of one convolution while samples come in.

    Args:
        node: The convolution.
        weight: Its weights `(C_out, C_in/groups, kH, kW)`.
        count: How many samples will come.
    """

    def __init__(self, node: onnx.NodeProto, weight: Array, count: int) -> None:
        self._given, self._kernel, self._count = attributes(node), weight.shape[2:], count
        self._groups = groups = int(self._given.get("group", 1))
        self._size = size = weight.shape[1] * self._kernel[0] * self._kernel[1]
        self._mean = np.zeros((groups, size))
        self._moments = np.zeros((groups, size, size)) if size <= LARGEST_PATCH else None
        self._picked: list[npt.NDArray[np.float32]] = []

    def add(self, data: Array) -> None:
        """Take one sample's map `(N, C_in, H, W)`."""
        padded, strides, dilations = _padded(data, self._kernel, self._given)
        rows, columns = (
            (padded.shape[2 + axis] - dilations[axis] * (self._kernel[axis] - 1) - 1) // strides[axis] + 1
            for axis in range(2)
        )
        taps = [(dilations[0] * i, dilations[1] * j) for i in range(self._kernel[0]) for j in range(self._kernel[1])]
        means = [
            padded[:, :, y : y + strides[0] * rows : strides[0], x : x + strides[1] * columns : strides[1]].mean(
                (0, 2, 3)
            )
            for y, x in taps
        ]
        self._mean += np.stack(means, axis=-1).reshape(self._groups, self._size) / self._count
        if self._moments is None:
            return
        chosen = np.linspace(0, rows * columns - 1, min(POSITIONS, rows * columns)).round().astype(int)
        y, x = strides[0] * (chosen // columns), strides[1] * (chosen % columns)
        picked = np.stack([padded[:, :, y + dy, x + dx] for dy, dx in taps], axis=-1)  # (N, C, places, kH * kW)
        picked = picked.transpose(0, 2, 1, 3).reshape(-1, self._groups, self._size)
        self._picked.append((picked / np.sqrt(len(picked) * self._count)).astype(np.float32))
        if sum(map(len, self._picked)) >= PLACES_AT_ONCE:
            self._flush()

    def finish(self) -> Patches:
        """What all samples came to."""
        self._flush()
        return Patches(self._mean, self._moments)

    def _flush(self) -> None:
        if self._moments is None or not self._picked:
            return
        together = np.concatenate(self._picked)  # (places, groups, P)
        self._picked.clear()
        if self._groups == 1:
            self._moments[0] += together[:, 0].T @ together[:, 0]
        else:
            self._moments += np.matmul(together.transpose(1, 2, 0), together.transpose(1, 0, 2))


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
