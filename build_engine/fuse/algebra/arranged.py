from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.exactness import NotExact, Reason
from build_engine.fuse.algebra.form import Form
from build_engine.fuse.algebra.window import Window

Size: TypeAlias = "int | str"
_BATCH, _CHANNEL = -2, -1


@dataclass(frozen=True)
class Factor:
    """A part of an axis: index ``i`` of it adds ``stride * i`` to an image coordinate.

    Args:
        coordinate: -2 for the batch, -1 for channels, else the number of the spatial axis.
        size: How many values it takes; a name where the size is open.
        stride: What one step adds.
    """

    coordinate: int
    size: Size
    stride: int = 1


@dataclass(frozen=True, eq=False)
class Arranged:
    """An image-like tensor with its axes split, merged or permuted by Reshape and Transpose.

    Channel shuffles, pixel unshuffles and layers in NHWC are all this, in between.

    Args:
        form: The tensor in its image order ``(N, C, *spatial)``.
        axes: The factors of every axis of the tensor as it is, outermost first.
    """

    form: Form
    axes: tuple[tuple[Factor, ...], ...]

    @classmethod
    def image(cls, form: Form, shape: Sequence[Size]) -> Arranged:
        """A tensor in image order; ``shape: (N, C, *spatial)``."""
        coordinates = [_BATCH, _CHANNEL, *range(len(shape) - 2)]
        return cls(form, tuple((Factor(at, size),) for at, size in zip(coordinates, shape, strict=True)))

    def transposed(self, permutation: Sequence[int]) -> Arranged:
        """The tensor with its axes permuted."""
        return dataclasses.replace(self, axes=tuple(self.axes[axis] for axis in permutation))

    def reshaped(self, shape: Sequence[Size | None]) -> Arranged:
        """The tensor in another shape.

        1. Every axis of the new shape is made of whole factors, or of a factor that it divides.
        2. An axis of unknown size can only be the batch.

        Args:
            shape: Sizes, names of open ones, or None where nothing is known.

        Raises:
            NotExact: One of the two does not hold.
        """
        # Axes of size 1 say nothing: they are dropped and made as needed.
        pending = [f for axis in self.axes for f in axis if f.size != 1]
        axes: list[tuple[Factor, ...]] = []
        for position, size in enumerate(shape):
            if size is None:
                if position > 0 or not pending or pending[0].coordinate != _BATCH:
                    raise NotExact(Reason.UNKNOWN_SHAPE, f"a reshape to {tuple(shape)}")
                axes.append((pending.pop(0),))
            elif isinstance(size, str):
                if not pending or pending[0].size != size:
                    raise NotExact(Reason.UNKNOWN_SHAPE, f"a reshape to {tuple(shape)}")
                axes.append((pending.pop(0),))
            else:
                axes.append(_taken(pending, size))
        if pending:
            raise NotExact(Reason.GEOMETRY, f"a reshape to {tuple(shape)} cuts across the axes")
        return dataclasses.replace(self, axes=tuple(axes))

    def settled(self) -> Form:
        """The convolution form of the tensor as it is now.

        1. The axes are batch, channels and the image's axes in order, as far as their sizes are not 1.
        2. What was split off an image axis went into the channels, the innermost part of it: the pixels of
           a block become channels, and the image is read with a stride.

        Raises:
            NotExact: One of the two does not hold.
        """
        form, axes = self.form, self.axes
        if len(axes) != form.axes + 2 or any(f.coordinate != _BATCH for f in axes[0]):
            raise NotExact(Reason.GEOMETRY, "the axes are not those of an image")
        blocks = []
        for spatial, axis in enumerate(axes[2:]):
            if len(axis) > 1 or any(f.coordinate != spatial for f in axis):
                raise NotExact(Reason.GEOMETRY, "the axes are not those of an image")
            blocks.append(axis[0].stride if axis else 1)
        inside = [f for f in axes[1] if f.coordinate >= 0]
        if any(f.coordinate == _BATCH or not isinstance(f.size, int) for f in axes[1]):
            raise NotExact(Reason.GEOMETRY, "the batch went into the channels")
        for spatial, block in enumerate(blocks):
            sizes = [int(f.size) for f in inside if f.coordinate == spatial]
            if math.prod(sizes) != block:
                raise NotExact(Reason.GEOMETRY, "the pixels of a block are not all channels")
        return _sorted_into_channels(form, axes[1], blocks)

    def per_channel(self, constant: npt.NDArray[Any]) -> Array:
        """A constant that the tensor is multiplied with or added to, as ``(C,)`` in image order.

        1. Aligned at the right, it varies along axes of channels only, and makes the tensor no larger.

        Raises:
            NotExact: It does not.
        """
        rank = len(self.axes)
        if constant.ndim > rank:
            raise NotExact(Reason.BROADCAST, f"a constant of shape {constant.shape} raises the rank")
        aligned: npt.NDArray[Any] = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
        channels = self.form.c_out
        indices: list[npt.NDArray[np.int64]] = []
        for position, axis in enumerate(self.axes):
            size = aligned.shape[position]
            if size > 1 and (
                any(f.coordinate != _CHANNEL for f in axis) or math.prod(int(f.size) for f in axis) != size
            ):
                raise NotExact(Reason.BROADCAST, f"a constant of shape {constant.shape} varies along the image")
            indices.append(_coordinate(axis, channels) if size > 1 else np.zeros(channels, dtype=np.int64))
        return np.asarray(aligned[tuple(indices)], dtype=np.float64)

    def mapped(self, form: Form) -> Arranged:
        """Another tensor in the same arrangement and of the same size."""
        return dataclasses.replace(self, form=form)

    def through(self, matrix: Deferred) -> Arranged:
        """A matrix product over the last axis; ``matrix: (C_in, C_out)``.

        1. The last axis is all channels, in order.

        Raises:
            NotExact: It is not.
        """
        c_in, c_out = matrix.shape
        if self.axes[-1] != (Factor(_CHANNEL, c_in),) or c_in != self.form.c_out:
            raise NotExact(Reason.OPERATOR, "a matrix product along the image is no convolution")
        shape = (c_out, c_in) + (1,) * self.form.axes
        weight = Deferred(shape, lambda: matrix.value.T.reshape(shape))
        form = self.form.then(Convolution(weight, (Window(),) * self.form.axes))
        return Arranged(form, (*self.axes[:-1], (Factor(_CHANNEL, c_out),)))


def _taken(pending: list[Factor], size: int) -> tuple[Factor, ...]:
    """Factors, outermost first, that make up an axis of ``size``; the last may be divided."""
    axis = []
    while size > 1:
        if not pending or not isinstance(pending[0].size, int):
            raise NotExact(Reason.GEOMETRY, "a reshape cuts across the axes")
        factor = pending.pop(0)
        whole = int(factor.size)
        if size % whole == 0:
            axis.append(factor)
            size //= whole
        elif whole % size == 0:
            rest = whole // size
            axis.append(Factor(factor.coordinate, size, factor.stride * rest))
            pending.insert(0, Factor(factor.coordinate, rest, factor.stride))
            size = 1
        else:
            raise NotExact(Reason.GEOMETRY, "a reshape cuts across the axes")
    return tuple(_rejoined(axis))


def _rejoined(axis: list[Factor]) -> list[Factor]:
    """Neighbouring factors that are one again."""
    joined: list[Factor] = []
    for factor in axis:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.coordinate == factor.coordinate
            and before.stride == factor.stride * int(factor.size)
        ):
            joined[-1] = Factor(factor.coordinate, int(before.size) * int(factor.size), factor.stride)
        else:
            joined.append(factor)
    return joined


def _coordinate(axis: tuple[Factor, ...], channels: int) -> npt.NDArray[np.int64]:
    """Index along an axis of channels, for every channel."""
    index = np.zeros(channels, dtype=np.int64)
    for factor in axis:
        index = index * int(factor.size) + (np.arange(channels) // factor.stride) % int(factor.size)
    return index


def _sorted_into_channels(form: Form, factors: tuple[Factor, ...], blocks: list[int]) -> Form:
    """Channel ``j`` of the result is one channel at one pixel of each block."""
    picks = []
    for digits in itertools.product(*(range(int(f.size)) for f in factors)):
        at = [0] * (form.axes + 1)
        for factor, digit in zip(factors, digits, strict=True):
            at[factor.coordinate] += factor.stride * digit  # channels, -1, are the last entry
        picks.append(at)
    if picks == [[0] * form.axes + [c] for c in range(form.c_out)] and all(block == 1 for block in blocks):
        return form
    shape = (len(picks), form.c_out, *blocks)

    def compute() -> Array:
        weight = np.zeros(shape)
        for row, (*pixel, channel) in enumerate(picks):
            index: tuple[int, ...] = (row, channel, *pixel)
            weight[index] = 1.0
        return weight

    windows = tuple(Window(block, block) for block in blocks)
    return form.then(Convolution(Deferred(shape, compute), windows))
