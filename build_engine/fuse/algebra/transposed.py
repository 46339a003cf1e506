from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.exactness import NotExact, Reason


@dataclass(frozen=True, eq=False)
class TransposedConvolution:
    """A transposed convolution without bias: a term of a form that only pointwise maps compose with.

    Args:
        weight: ``(C_in, C_out / groups, *kernel)``, as ONNX has it.
        strides: One per spatial axis, like all that follow.
        dilations: Distance of neighbouring taps.
        pads: ``(begin, end)`` cut off the output.
        output_padding: Added to the output's end.
        groups: As in `Convolution`.
    """

    weight: Deferred
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    output_padding: tuple[int, ...]
    groups: int = 1
    is_identity: bool = False
    is_pointwise: bool = False

    @property
    def c_out(self) -> int:
        """Number of output channels."""
        return self.weight.shape[1] * self.groups

    @property
    def c_in(self) -> int:
        """Number of input channels."""
        return self.weight.shape[0]

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.strides)

    def scaled(self, scale: Deferred) -> TransposedConvolution:
        """Every output channel times its factor; ``scale: (C_out,)``."""
        weight, groups = self.weight, self.groups

        def compute() -> Array:
            grouped = weight.value.reshape(groups, -1, *weight.shape[1:])
            factors = scale.value.reshape(groups, 1, -1, *[1] * self.axes)
            return (grouped * factors).reshape(weight.shape)

        return dataclasses.replace(self, weight=Deferred(weight.shape, compute))

    def padded(self, pads: Sequence[tuple[int, int]]) -> TransposedConvolution:
        """A crop of the output, which is what a transposed convolution's padding is.

        Raises:
            NotExact: It is a padding, not a crop: beyond its ends a transposed convolution goes on.
        """
        if any(begin > 0 or end > 0 for begin, end in pads):
            raise NotExact(Reason.BORDER, "a transposed convolution goes on beyond its ends")
        cut = tuple((b - more_b, e - more_e) for (b, e), (more_b, more_e) in zip(self.pads, pads, strict=True))
        return dataclasses.replace(self, pads=cut)

    def then(self, second: Convolution) -> TransposedConvolution:
        """A pointwise convolution of the output; groups become dense unless it is depthwise.

        Raises:
            NotExact: The second one is not pointwise.
        """
        if not second.is_pointwise:
            raise NotExact(Reason.GEOMETRY, "a convolution after a transposed one is no transposed convolution")
        if second.is_depthwise:
            return self.scaled(Deferred((second.c_out,), lambda: second.weight.value.reshape(-1)))
        dense, matrix = self.dense(), second.in_groups(1).weight
        shape = (self.c_in, second.c_out, *self.weight.shape[2:])

        def compute() -> Array:
            mixed = np.tensordot(dense.value, matrix.value.reshape(matrix.shape[:2]), axes=(1, 1))
            return np.moveaxis(mixed, -1, 1)

        return dataclasses.replace(self, weight=Deferred(shape, compute), groups=1)

    def of(self, first: Convolution) -> TransposedConvolution:
        """This one after a pointwise convolution; groups become dense unless that is the identity."""
        if first.is_identity:
            return self
        dense, matrix = self.dense(), first.in_groups(1).weight
        shape = (first.c_in, self.c_out, *self.weight.shape[2:])

        def compute() -> Array:
            return np.tensordot(matrix.value.reshape(matrix.shape[:2]), dense.value, axes=(0, 0))

        return dataclasses.replace(self, weight=Deferred(shape, compute), groups=1)

    def dense(self) -> Deferred:
        """Weights with one group, ``(C_in, C_out, *kernel)``."""
        weight, groups = self.weight, self.groups
        if groups == 1:
            return weight
        shape = (self.c_in, self.c_out, *weight.shape[2:])

        def compute() -> Array:
            full = np.zeros((groups, self.c_in // groups, groups, *weight.shape[1:]))
            blocks = weight.value.reshape(groups, -1, *weight.shape[1:])
            for group in range(groups):
                full[group, :, group] = blocks[group]
            return full.reshape(shape)

        return Deferred(shape, compute)

    def plus(self, other: TransposedConvolution | Convolution, _: Sequence[int | None]) -> TransposedConvolution:
        """The sum of two transposed convolutions that differ in weights only.

        Raises:
            NotExact: They differ in more.
        """
        if not isinstance(other, TransposedConvolution) or _geometry(self) != _geometry(other):
            raise NotExact(Reason.GEOMETRY, "a transposed convolution and another branch differ in geometry")
        mine, theirs = self.dense(), other.dense()
        weight = Deferred(mine.shape, lambda: mine.value + theirs.value)
        return dataclasses.replace(self, weight=weight, groups=1)


def _geometry(term: TransposedConvolution) -> tuple[object, ...]:
    return term.weight.shape[2:], term.strides, term.dilations, term.pads, term.output_padding
