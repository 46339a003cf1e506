from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred


def compose(first: Convolution, second: Convolution) -> Convolution:
    """The one convolution equal to ``second`` (unpadded) after ``first``; always exact.

    ``W[o, i, t] = sum_m W2[o, m, k2] W1[m, i, k1]`` over all taps that meet at ``t``; see `Window.then`
    for their positions. Groups become their greatest common divisor. (Diverse Branch Block,
    arXiv 2103.13425, transforms I, III and V; here for any stride, dilation and grouping.)
    """
    if second.is_identity:
        return first
    windows = tuple(a.then(b) for a, b in zip(first.windows, second.windows, strict=True))
    if first.is_identity:
        return second
    groups = math.gcd(first.groups, second.groups)
    shape = (second.c_out, first.c_in // groups, *(w.kernel for w in windows))

    def compute() -> Array:
        return _weights(first, second, groups, shape)

    return Convolution(Deferred(shape, compute), windows, groups, is_zero=first.is_zero or second.is_zero)


def _weights(first: Convolution, second: Convolution, groups: int, shape: tuple[int, ...]) -> Array:
    """Composed weights, ``shape``; the two depthwise cases avoid matrices that are mostly zero."""
    result = np.zeros(shape)
    placed = [
        _Placement(a.kernel, a.dilation, b.kernel, a.stride * b.dilation)
        for a, b in zip(first.windows, second.windows, strict=True)
    ]
    if second.is_depthwise:
        left, right = second.weight.value, first.in_groups(groups).weight.value

        def product(tap: tuple[int, ...]) -> Array:
            return _at(left, tap).reshape(-1, *[1] * (right.ndim - 1)) * right

    elif first.is_depthwise:
        left = second.in_groups(groups).weight.value
        per_group = first.weight.value.reshape(groups, 1, -1, *first.weight.shape[2:])

        def product(tap: tuple[int, ...]) -> Array:
            rows = _at(left, tap).reshape(groups, -1, left.shape[1])
            spread = rows.reshape(*rows.shape, *[1] * (per_group.ndim - 3)) * per_group
            return spread.reshape(-1, *spread.shape[2:])

    else:
        left = second.in_groups(groups).weight.value
        right = first.in_groups(groups).weight.value
        columns = right.reshape(groups, right.shape[0] // groups, -1)

        def product(tap: tuple[int, ...]) -> Array:
            rows = _at(left, tap).reshape(groups, -1, left.shape[1])
            return (rows @ columns).reshape(-1, *right.shape[1:])

    for tap in itertools.product(*(range(w.kernel) for w in second.windows)):
        at = tuple(place(k) for place, k in zip(placed, tap, strict=True))
        index: tuple[Any, ...] = (slice(None), slice(None), *at)
        result[index] += product(tap)
    return result


def _at(weight: Array, tap: tuple[int, ...]) -> Array:
    index: tuple[Any, ...] = (..., *tap)
    return np.asarray(weight[index])


class _Placement:
    """Positions, in the composed kernel, of all first taps seen through one second tap."""

    def __init__(self, kernel1: int, step1: int, kernel2: int, step2: int) -> None:
        steps = [step1] * (kernel1 > 1) + [step2] * (kernel2 > 1)
        unit = math.gcd(*steps) if steps else 1
        self.step1 = step1 // unit if kernel1 > 1 else 1
        self.step2 = step2 // unit if kernel2 > 1 else 1
        self.length = self.step1 * (kernel1 - 1) + 1

    def __call__(self, tap: int) -> slice:
        start = self.step2 * tap
        return slice(start, start + self.length, self.step1)
