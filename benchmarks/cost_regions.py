"""Random linear regions, each as it would be exported and merged as far as that is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engine.fuse import FuseOptions, fuse

MERGE_ALL = FuseOptions(ns_per_mac=0.0, ns_per_byte=0.0, ns_per_launch=1.0)
"""A cost model that counts launches alone, so that whatever may be merged is."""


@dataclass(frozen=True)
class Region:
    """A linear region and its ReLU.

    Attributes:
        name: Its kind and geometry.
        apart: The graph as exported.
        merged: The same function in as few operators as the algebra allows.
    """

    name: str
    apart: onnx.ModelProto
    merged: onnx.ModelProto


class _Graph:
    """A graph of one input `x` while it is drawn."""

    def __init__(self, random: np.random.Generator, channels: int, size: int) -> None:
        self._random = random
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._channels = {"x": channels}
        self._input = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, size, size])

    def conv(
        self, x: str, c_out: int, kernel: tuple[int, int], *, pad: bool = True, groups: int = 1, dilation: int = 1
    ) -> str:
        shape = (c_out, self._channels[x] // groups, *kernel)
        weight = (self._random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        self._weights.append(numpy_helper.from_array(weight, f"w{len(self._weights)}"))
        pads = [dilation * (k // 2) if pad else 0 for k in kernel] * 2
        y = self._node("Conv", [x, self._weights[-1].name], pads=pads, group=groups, dilations=[dilation] * 2)
        self._channels[y] = c_out
        return y

    def add(self, *terms: str) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = self._node("Add", [total, term])
        return total

    def concat(self, *parts: str) -> str:
        y = self._node("Concat", list(parts), axis=1)
        self._channels[y] = sum(self._channels[part] for part in parts)
        return y

    def average(self, x: str) -> str:
        return self._node("AveragePool", [x], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401 - as ONNX takes them
        y = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [y], y, **attributes))
        self._channels[y] = self._channels[inputs[0]]
        return y

    def model(self, y: str) -> onnx.ModelProto:
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        nodes = [*self._nodes, helper.make_node("Relu", [y], ["y"], "relu")]
        graph = helper.make_graph(nodes, "region", [self._input], [output], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model)


def _bottleneck(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    middle, out = (
        pick(channels // 8, channels // 4, channels // 2, channels, 2 * channels),
        pick(channels // 2, channels),
    )
    return g.conv(g.conv("x", middle, (1, 1)), out, (3, 3)), f"1x1 to {middle}, 3x3 to {out}"


def _expansion(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    middle, out = pick(channels // 4, channels // 2, channels, 2 * channels), pick(channels // 2, channels)
    return g.conv(g.conv("x", middle, (3, 3)), out, (1, 1)), f"3x3 to {middle}, 1x1 to {out}"


def _branches(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    terms = [g.conv("x", channels, (3, 3)), g.conv("x", channels, (1, 1)), *(["x"] if pick(0, 1) else [])]
    return g.add(*terms), f"{' + '.join(['3x3', '1x1', 'identity'][: len(terms)])}"


def _separable(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    out = pick(channels // 2, channels, 2 * channels)
    return g.conv(g.conv("x", channels, (3, 3), groups=channels), out, (1, 1)), f"depthwise 3x3, 1x1 to {out}"


def _large_kernel(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    large = pick(7, 9, 13)
    terms = [g.conv("x", channels, (k, k), groups=channels) for k in (large, 3)]
    return g.add(*terms), f"depthwise {large}x{large} + 3x3"


def _dilated(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    dilation, groups = pick(2, 3), pick(1, channels)
    terms = [g.conv("x", channels, (3, 3), groups=groups, dilation=d) for d in (1, dilation)]
    return g.add(*terms), f"3x3 + 3x3 dilated by {dilation}{', depthwise' if groups > 1 else ''}"


def _valid(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    middle = pick(channels // 2, channels)
    return g.conv(
        g.conv("x", middle, (3, 3), pad=False), channels, (3, 3), pad=False
    ), f"3x3 to {middle}, 3x3, no padding"


def _strips(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    k, groups = pick(3, 5, 7), pick(1, channels)
    y = g.conv(g.conv("x", channels, (k, 1), groups=groups), channels, (1, k), groups=groups)
    return y, f"{k}x1, 1x{k}{', depthwise' if groups > 1 else ''}"


def _grouped(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    groups = pick(2, 4, 8)
    return g.add(
        g.conv("x", channels, (3, 3), groups=groups), g.conv("x", channels, (1, 1))
    ), f"3x3 in {groups} groups + 1x1"


def _inception(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    out = pick(channels // 2, channels)
    both = g.concat(g.conv("x", channels // 2, (3, 3)), g.conv("x", channels // 2, (1, 1)))
    return g.conv(both, out, (1, 1)), f"3x3 beside 1x1, 1x1 to {out}"


def _pooled(g: _Graph, channels: int, pick: Callable[..., int]) -> tuple[str, str]:
    return g.add(g.conv("x", channels, (3, 3)), g.average(g.conv("x", channels, (1, 1)))), "3x3 + averaged 1x1"


_KINDS = (
    *(_bottleneck, _expansion, _branches, _separable, _large_kernel, _dilated),
    *(_valid, _strips, _grouped, _inception, _pooled),
)


def regions(count: int, seed: int) -> list[Region]:
    """Regions of every kind in turn, of random channels and sizes; same seed, same regions."""
    random = np.random.default_rng(seed)
    found: list[Region] = []
    while len(found) < count:
        channels, size = int(random.choice([16, 32, 64, 128, 256])), int(random.choice([14, 28, 56, 112]))
        if channels * size > 256 * 28:  # as in a network: many channels where there are few pixels
            continue
        graph = _Graph(random, channels, size)
        kind = _KINDS[len(found) % len(_KINDS)]
        y, name = kind(graph, channels, lambda *choices: int(random.choice(choices)))
        apart = graph.model(y)
        merged = onnx.shape_inference.infer_shapes(fuse(apart, MERGE_ALL).model)
        if len(merged.graph.node) < len(apart.graph.node):
            found.append(Region(f"{channels} x {size}x{size}: {name}", apart, merged))
    return found
