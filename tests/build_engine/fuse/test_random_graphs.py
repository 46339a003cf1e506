"""Random directed graphs of linear operations compute the same after fusing, borders included."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from build_engine.fuse import FuseOptions
from tests.build_engine.fuse.graphs import EAGER, GraphBuilder, fused, operators

# What a graph may be made of, before and after.
_OPERATORS = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Gather"}
    | {"Gemm", "GlobalAveragePool", "Identity", "MatMul", "MaxPool", "Mean", "Mul", "Neg", "Pad", "Relu", "Reshape"}
    | {"Resize", "Slice", "SpaceToDepth", "Split", "Sub", "Sum", "Transpose"}
)


@dataclass(frozen=True)
class Tensor:
    name: str
    channels: int
    sizes: tuple[int, int]


class RandomGraph:
    """Grows a graph node by node; every step picks a tensor so far and something to do with it."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        sizes = (self.pick(1, 7), self.pick(1, 7))
        self.rng = np.random.default_rng(self.pick(0, 1000))
        self.batch = self.pick(1, 2)
        inputs = [(self.batch, self.pick(1, 6), *sizes)] * self.pick(1, 2)
        self.graph = GraphBuilder(*inputs)
        self.tensors = [Tensor(f"x{i}", shape[1], sizes) for i, shape in enumerate(inputs)]

    def pick(self, low: int, high: int) -> int:
        return int(self.data.draw(st.integers(low, high)))

    def grow(self) -> None:
        steps = [self.conv, self.conv, self.conv, self.norm, self.scale, self.shift, self.join, self.join, self.concat]
        steps += [self.channels, self.crop, self.pad, self.average, self.same, self.relu, self.split, self.several]
        steps += [
            self.divide,
            self.every_other,
            self.shuffle,
            self.blocks,
            self.pixels_last,
            self.repeat,
            self.up,
            self.parts,
        ]
        # Mostly the latest tensors, so that graphs get deep.
        source = self.tensors[max(0, len(self.tensors) - 1 - self.pick(0, 3))]
        self.data.draw(st.sampled_from(steps))(source)

    def push(self, x: Tensor, name: str, channels: int | None = None, sizes: tuple[int, int] | None = None) -> None:
        self.tensors.append(Tensor(name, channels or x.channels, sizes or x.sizes))

    def window(self) -> tuple[list[int], list[int], list[int], list[int]]:
        kernel = [self.pick(1, 3), self.pick(1, 3)]
        if self.pick(0, 1):
            same = [k // 2 for k in kernel]
            return kernel, [1, 1], [1, 1], [*same, *(k - 1 - p for k, p in zip(kernel, same, strict=True))]
        pads = [self.pick(0, 2) for _ in range(4)]
        return kernel, [self.pick(1, 2), self.pick(1, 2)], [self.pick(1, 2), self.pick(1, 2)], pads

    def conv(self, x: Tensor) -> None:
        kernel, strides, dilations, pads = self.window()
        group = self.data.draw(st.sampled_from([g for g in range(1, x.channels + 1) if x.channels % g == 0]))
        c_out = group * self.pick(1, max(1, 6 // group))
        if self.pick(0, 2) == 0:
            c_out = x.channels
        sizes = out_sizes(x.sizes, kernel, strides, dilations, pads)
        if min(sizes) < 1:
            return
        operands = [self.rng.normal(size=(c_out, x.channels // group, *kernel))]
        if self.pick(0, 2) == 0:
            operands.append(self.rng.normal(size=c_out))
        name = self.graph.add(
            "Conv", x.name, *operands, kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads, group=group
        )
        self.push(x, name, c_out, sizes)

    def norm(self, x: Tensor) -> None:
        c, rng = x.channels, self.rng
        stats = [rng.uniform(0.5, 1.5, c), rng.normal(size=c), rng.normal(size=c), rng.uniform(0.3, 2, c)]
        self.push(x, self.graph.add("BatchNormalization", x.name, *stats))

    def scale(self, x: Tensor) -> None:
        shape = self.data.draw(st.sampled_from([(), (x.channels, 1, 1), (x.sizes[1],)]))
        self.push(x, self.graph.add("Mul", x.name, self.rng.uniform(0.5, 1.5, shape)))

    def shift(self, x: Tensor) -> None:
        self.push(x, self.graph.add("Add", x.name, self.rng.normal(size=(x.channels, 1, 1))))

    def join(self, x: Tensor) -> None:
        fitting = [t for t in self.tensors if (t.channels, t.sizes) == (x.channels, x.sizes)]
        other = self.data.draw(st.sampled_from(fitting))
        self.push(x, self.graph.add(self.data.draw(st.sampled_from(["Add", "Sub"])), x.name, other.name))

    def concat(self, x: Tensor) -> None:
        other = self.data.draw(st.sampled_from([t for t in self.tensors if t.sizes == x.sizes]))
        if x.channels + other.channels <= 8:
            self.push(x, self.graph.add("Concat", x.name, other.name, axis=1), x.channels + other.channels)

    def channels(self, x: Tensor) -> None:
        rows = self.data.draw(st.lists(st.integers(0, x.channels - 1), min_size=1, max_size=6))
        self.push(x, self.graph.add("Gather", x.name, np.array(rows), axis=1), len(rows))

    def crop(self, x: Tensor) -> None:
        start, stop, step = [self.pick(0, 1), self.pick(0, 1)], [self.pick(5, 7), -1], [self.pick(1, 2), 1]
        sizes = tuple(
            len(range(*slice(b, e, s).indices(n))) for b, e, s, n in zip(start, stop, step, x.sizes, strict=True)
        )
        if min(sizes) >= 1:
            bounds = (np.array(values) for values in (start, stop, [2, 3], step))
            self.push(x, self.graph.add("Slice", x.name, *bounds), sizes=(sizes[0], sizes[1]))

    def pad(self, x: Tensor) -> None:
        pads = [self.pick(0, 2) for _ in range(4)]
        name = self.graph.add("Pad", x.name, np.array([0, 0, *pads[:2], 0, 0, *pads[2:]]))
        self.push(x, name, sizes=(x.sizes[0] + pads[0] + pads[2], x.sizes[1] + pads[1] + pads[3]))

    def average(self, x: Tensor) -> None:
        kernel, strides, _, pads = self.window()
        pads = [min(p, k - 1) for p, k in zip(pads, kernel * 2, strict=True)]
        sizes = out_sizes(x.sizes, kernel, strides, [1, 1], pads)
        if min(sizes) >= 1:
            counted = self.pick(0, 1)
            name = self.graph.add(
                "AveragePool", x.name, kernel_shape=kernel, strides=strides, pads=pads, count_include_pad=counted
            )
            self.push(x, name, sizes=sizes)

    def split(self, x: Tensor) -> None:
        if x.channels < 2:
            return
        first = self.pick(1, x.channels - 1)
        sizes = [first, x.channels - first]
        for name, size in zip(self.graph.add("Split", x.name, np.array(sizes), outputs=2, axis=1), sizes, strict=True):
            self.push(x, name, size)

    def parts(self, x: Tensor) -> None:
        """Grouped convolutions of some channels each, side by side again."""
        sizes = [self.pick(1, 2), self.pick(1, 2), x.channels - 4]
        if x.channels < 5:
            sizes = [x.channels // 2, x.channels - x.channels // 2]
        if min(sizes) < 1 or sum(sizes) != x.channels:
            return
        names = self.graph.add("Split", x.name, np.array(sizes), outputs=len(sizes), axis=1)
        kernel, multiplier = self.pick(1, 3), self.pick(1, 2) if x.channels < 5 else 1
        made = []
        for name, size in zip(names, sizes, strict=True):
            group = size if self.pick(0, 2) else 1
            operands = [self.rng.normal(size=(multiplier * size, size // group, kernel, kernel))]
            if self.pick(0, 1):
                operands.append(self.rng.normal(size=multiplier * size))
            same = [kernel // 2] * 2 + [kernel - 1 - kernel // 2] * 2
            skipped = multiplier == 1 and self.pick(0, 3) == 0
            made.append(name if skipped else self.graph.add("Conv", name, *operands, pads=same, group=group))
        self.push(x, self.graph.add("Concat", *made, axis=1), multiplier * x.channels)

    def several(self, x: Tensor) -> None:
        fitting = [t.name for t in self.tensors if (t.channels, t.sizes) == (x.channels, x.sizes)]
        others = self.data.draw(st.lists(st.sampled_from(fitting), max_size=3))
        self.push(x, self.graph.add(self.data.draw(st.sampled_from(["Sum", "Mean"])), x.name, *others))

    def divide(self, x: Tensor) -> None:
        y = self.graph.add("Div", x.name, self.rng.uniform(0.5, 1.5, (x.channels, 1, 1)))
        self.push(x, self.graph.add("Neg", y) if self.pick(0, 1) else y)

    def every_other(self, x: Tensor) -> None:
        strides = [self.pick(1, 2), self.pick(1, 2)]
        name = self.graph.add("MaxPool", x.name, kernel_shape=[1, 1], strides=strides)
        self.push(x, name, sizes=out_sizes(x.sizes, [1, 1], strides, [1, 1], [0] * 4))

    def shuffle(self, x: Tensor) -> None:
        groups = self.data.draw(st.sampled_from([g for g in range(1, x.channels + 1) if x.channels % g == 0]))
        split = self.graph.add("Reshape", x.name, np.array([self.batch, groups, x.channels // groups, *x.sizes]))
        turned = self.graph.add("Transpose", split, perm=[0, 2, 1, 3, 4])
        self.push(x, self.graph.add("Reshape", turned, np.array([self.batch, x.channels, *x.sizes])))

    def blocks(self, x: Tensor) -> None:
        height, width = x.sizes
        if self.pick(0, 1) and height % 2 == width % 2 == 0 and x.channels <= 3:
            name = self.graph.add("SpaceToDepth", x.name, blocksize=2)
            self.push(x, name, 4 * x.channels, (height // 2, width // 2))
        elif x.channels % 4 == 0 and max(x.sizes) <= 8:
            mode = self.data.draw(st.sampled_from(["CRD", "DCR"]))
            name = self.graph.add("DepthToSpace", x.name, blocksize=2, mode=mode)
            self.push(x, name, x.channels // 4, (2 * height, 2 * width))

    def pixels_last(self, x: Tensor) -> None:
        """A linear layer on channels that stand last."""
        channels = self.pick(1, 6)
        y = self.graph.add("Transpose", x.name, perm=[0, 2, 3, 1])
        y = self.graph.add("MatMul", y, self.rng.normal(size=(x.channels, channels)))
        if self.pick(0, 1):
            y = self.graph.add("Add", y, self.rng.normal(size=channels))
        self.push(x, self.graph.add("Transpose", y, perm=[0, 3, 1, 2]), channels)

    def repeat(self, x: Tensor) -> None:
        """A border that repeats pixels, or a mean of all of them: what is pointwise moves across."""
        if self.pick(0, 2) == 0:
            self.push(x, self.graph.add("GlobalAveragePool", x.name), sizes=(1, 1))
            return
        mode = self.data.draw(st.sampled_from(["edge", "reflect"]))
        most = 1 if mode == "edge" else min(1, min(x.sizes) - 1)
        pads = [self.pick(0, most) for _ in range(4)]
        name = self.graph.add("Pad", x.name, np.array([0, 0, *pads[:2], 0, 0, *pads[2:]]), mode=mode)
        self.push(x, name, sizes=(x.sizes[0] + pads[0] + pads[2], x.sizes[1] + pads[1] + pads[3]))

    def up(self, x: Tensor) -> None:
        if max(x.sizes) > 6:
            return
        if self.pick(0, 1):
            name = self.graph.add("Resize", x.name, "", np.array([1, 1, 2, 2], dtype=np.float32), mode="nearest")
            self.push(x, name, sizes=(2 * x.sizes[0], 2 * x.sizes[1]))
            return
        group = self.data.draw(st.sampled_from([g for g in range(1, x.channels + 1) if x.channels % g == 0]))
        per_group, kernel = self.pick(1, 2), self.pick(1, 3)
        operands = [self.rng.normal(size=(x.channels, per_group, kernel, kernel))]
        if self.pick(0, 1):
            operands.append(self.rng.normal(size=per_group * group))
        name = self.graph.add("ConvTranspose", x.name, *operands, strides=[2, 2], group=group)
        sizes = tuple(2 * (n - 1) + kernel for n in x.sizes)
        self.push(x, name, per_group * group, (sizes[0], sizes[1]))

    def same(self, x: Tensor) -> None:
        self.push(x, self.graph.add("Identity", x.name))

    def relu(self, x: Tensor) -> None:
        if self.pick(0, 3) == 0:
            self.push(x, self.graph.add("Relu", x.name))


def out_sizes(
    sizes: tuple[int, int], kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]
) -> tuple[int, int]:
    one, two = (
        (n + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i, n in enumerate(sizes)
    )
    return one, two


_SEEN: Counter[str] = Counter()


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs_compute_the_same(data: st.DataObject) -> None:
    random = RandomGraph(data)
    for _ in range(random.pick(5, 14)):
        random.grow()
    made = [t.name for t in random.tensors if not t.name.startswith("x")]
    if not made:
        return
    outputs = {made[-1], made[random.pick(0, len(made) - 1)]}
    options = EAGER if random.pick(0, 1) else FuseOptions()
    model = random.graph.model(*sorted(outputs))
    result = fused(model, options)
    if options is EAGER:
        _SEEN["before"] += result.report.before.launches
        _SEEN["after"] += result.report.after.launches
    assert set(operators(result.model)) <= _OPERATORS


def test_random_graphs_were_merged_and_not_refused() -> None:
    share = 1 - _SEEN["after"] / _SEEN["before"] if _SEEN["before"] else None
    assert share is None or share >= 0.28, f"{_SEEN['before']} operators became {_SEEN['after']}"
