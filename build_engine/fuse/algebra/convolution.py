from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.window import Window


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution without bias, over any number of spatial axes.

    Args:
        weight: ``(C_out, C_in / groups, *kernel)``.
        windows: One per spatial axis.
        groups: Output channels ``[g * C_out/groups, ...)`` read input channels ``[g * C_in/groups, ...)``.
        is_identity: Known to return its input unchanged.
        is_zero: Known to return zeros.
    """

    weight: Deferred
    windows: tuple[Window, ...]
    groups: int = 1
    is_identity: bool = False
    is_zero: bool = False

    @property
    def c_out(self) -> int:
        """Number of output channels."""
        return self.weight.shape[0]

    @property
    def c_in(self) -> int:
        """Number of input channels."""
        return self.weight.shape[1] * self.groups

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.windows)

    @property
    def is_pointwise(self) -> bool:
        """Whether every output position reads its own input position only."""
        return all(w.is_identity for w in self.windows)

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is treated alone."""
        return self.groups == self.c_in == self.c_out

    @classmethod
    def identity(cls, channels: int, axes: int) -> Convolution:
        """Depthwise 1x1 with weight one."""
        shape = (channels, 1) + (1,) * axes
        return cls(Deferred(shape, lambda: np.ones(shape)), (Window(),) * axes, channels, is_identity=True)

    @classmethod
    def rows(cls, channels: int, rows: Sequence[int], axes: int) -> Convolution:
        """Dense 1x1 whose output channel ``j`` is input channel ``rows[j]``; -1 gives zeros."""
        index = np.asarray(rows)
        shape = (len(index), channels) + (1,) * axes

        def compute() -> Array:
            weight = np.zeros(shape)
            kept = np.flatnonzero(index >= 0)
            weight[kept, index[kept]] = 1.0
            return weight

        return cls(Deferred(shape, compute), (Window(),) * axes)

    def scaled(self, scale: Deferred) -> Convolution:
        """Every output channel times its factor; ``scale: (C_out,)``."""
        weight = self.weight

        def compute() -> Array:
            return weight.value * scale.value.reshape(-1, *[1] * (len(weight.shape) - 1))

        return dataclasses.replace(self, weight=Deferred(weight.shape, compute), is_identity=False)

    def with_windows(self, windows: tuple[Window, ...]) -> Convolution:
        """The same taps under other paddings or strides."""
        same = self.is_identity and windows == self.windows
        return dataclasses.replace(self, windows=windows, is_identity=same)

    def in_groups(self, groups: int) -> Convolution:
        """The same map with fewer groups: blocks on a diagonal; ``groups`` divides ``self.groups``."""
        if groups == self.groups:
            return self
        weight, ratio = self.weight, self.groups // groups
        shape = (self.c_out, self.c_in // groups, *weight.shape[2:])

        def compute() -> Array:
            blocks = weight.value.reshape(groups, ratio, -1, *weight.shape[1:])
            dense = np.zeros((groups, ratio, blocks.shape[2], ratio, *weight.shape[1:]))
            for block in range(ratio):
                dense[:, block, :, block] = blocks[:, block]
            return dense.reshape(shape)

        return Convolution(Deferred(shape, compute), self.windows, groups)

    def grown(self, windows: tuple[Window, ...]) -> Convolution:
        """The same map written with windows that are a `Window.union` of its own and others."""
        if windows == self.windows:
            return self
        weight = self.weight
        shape = weight.shape[:2] + tuple(w.kernel for w in windows)
        taps = (own.taps_in(big) for own, big in zip(self.windows, windows, strict=True))
        index: tuple[Any, ...] = (slice(None), slice(None), *taps)

        def compute() -> Array:
            big = np.zeros(shape)
            big[index] = weight.value
            return big

        return Convolution(Deferred(shape, compute), windows, self.groups)

    def plus(self, other: Convolution, sizes: Sequence[int | None]) -> Convolution:
        """The sum of two convolutions of one source.

        1. `Window.union` exists on every axis.
        2. Groups become their greatest common divisor (groups are contiguous blocks, so coarser blocks
           contain finer ones).

        Args:
            other: With the same ``c_in`` and ``c_out``.
            sizes: The source's spatial sizes where known.

        Raises:
            NotExact: The windows cannot be aligned.
        """
        windows = tuple(a.union(b, n) for a, b, n in zip(self.windows, other.windows, sizes, strict=True))
        groups = math.gcd(self.groups, other.groups)
        one, two = self.in_groups(groups).grown(windows), other.in_groups(groups).grown(windows)
        weight = Deferred(one.weight.shape, lambda: one.weight.value + two.weight.value)
        return Convolution(weight, windows, groups)

    def trimmed(self) -> Convolution:
        """The same map without outer taps that are zero and lie in the padding; looks at the weights."""
        used = np.abs(self.weight.value).sum(axis=(0, 1))
        windows, index = [], [slice(None), slice(None)]
        for axis, window in enumerate(self.windows):
            taps = np.flatnonzero(used.sum(axis=tuple(i for i in range(used.ndim) if i != axis)))
            first, last = (int(taps[0]), int(taps[-1])) if taps.size else (0, window.kernel - 1)
            before = min(first, max(window.begin, 0) // window.dilation)
            after = min(window.kernel - 1 - last, max(window.end, 0) // window.dilation)
            kernel = window.kernel - before - after
            index.append(slice(before, before + kernel))
            windows.append(
                Window(
                    kernel,
                    window.stride,
                    window.dilation if kernel > 1 else 1,
                    window.begin - window.dilation * before,
                    window.end - window.dilation * after,
                )
            )
        if tuple(windows) == self.windows:
            return self
        return Convolution(Deferred.of(self.weight.value[tuple(index)]), tuple(windows), self.groups)

    @classmethod
    def joined(cls, parts: Sequence[Convolution]) -> Convolution:
        """The convolution of concatenated sources; all parts dense, with the same windows."""
        kernel = parts[0].weight.shape[2:]
        shape = (parts[0].c_out, sum(part.c_in for part in parts), *kernel)
        weight = Deferred(shape, lambda: np.concatenate([part.weight.value for part in parts], axis=1))
        return cls(weight, parts[0].windows)
