from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from build_engine.fuse.algebra import Arranged, Deferred, Form, Framed, NotExact, Reason

Constant: TypeAlias = npt.NDArray[Any]
Shaped: TypeAlias = "Form | Framed | Arranged"  # what a rule says of a tensor
Operand: TypeAlias = "Shaped | Constant | Computed | None"
Dim: TypeAlias = "int | str | None"


class Computed:
    """An input that is computed at run time and no image: an index, a shape, a condition."""


@dataclass(frozen=True, eq=False)
class Site:
    """One node as a rule sees it.

    Args:
        node: The ONNX node.
        operands: Per input its form, its constant value, `Computed`, or None where the input is left out.
        opset: Version of the default operator set.
        moved: The node's output, had it read another tensor; see `rules.commute`.
        assumed_shape: What to take every input's shape for, if not the shape in the graph.
    """

    node: ir.Node
    operands: tuple[Operand, ...]
    opset: int
    moved: Callable[[object], ir.Value] | None = None
    assumed_shape: tuple[Dim, ...] | None = None

    def form(self, index: int) -> Form:
        """The form of an input.

        Raises:
            NotExact: The input is a constant or left out.
        """
        operand = self.operands[index] if index < len(self.operands) else None
        if not isinstance(operand, Form):
            raise NotExact(Reason.OPERATOR, f"input {index} of {self.node.op_type} is no image-like tensor")
        return operand

    def constant(self, index: int) -> Constant:
        """The value of a constant input.

        Raises:
            NotExact: The input is computed at run time.
        """
        value = self.optional_constant(index)
        if value is None:
            raise NotExact(Reason.OPERATOR, f"{self.node.op_type} has no input {index}")
        return value

    def optional_constant(self, index: int) -> Constant | None:
        """The value of a constant input, None where it is left out.

        Raises:
            NotExact: The input is computed at run time.
        """
        operand = self.operands[index] if index < len(self.operands) else None
        if isinstance(operand, Form | Framed | Arranged | Computed):
            raise NotExact(
                Reason.OPERATOR, f"input {index} of {self.node.op_type} is computed at run time, not constant"
            )
        return operand

    def shape(self, index: int = 0) -> tuple[Dim, ...]:
        """The shape of an input: known sizes, names of symbolic ones, None where nothing is known.

        Raises:
            NotExact: Not even the rank is known.
        """
        return self.assumed_shape or known_shape(self.node.inputs[index])

    def output_shape(self) -> tuple[Dim, ...]:
        """The shape of the first output.

        Raises:
            NotExact: Not even the rank is known.
        """
        return known_shape(self.node.outputs[0])

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """A list-of-integers attribute."""
        attribute = self.node.attributes.get(name)
        return tuple(default) if attribute is None else tuple(int(i) for i in attribute.as_ints())

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()


Rule: TypeAlias = Callable[[Site], "Shaped | Sequence[Shaped]"]


def known_shape(value: ir.Value | None) -> tuple[Dim, ...]:
    """A tensor's shape: known sizes, names of symbolic ones, None where nothing is known.

    Raises:
        NotExact: Not even the rank is known.
    """
    if value is None or value.shape is None:
        name = None if value is None else value.name
        raise NotExact(Reason.UNKNOWN_SHAPE, f"the shape of '{name}' is unknown")
    return tuple(int(dim) if isinstance(dim, int) else (None if dim.value is None else str(dim)) for dim in value.shape)


def per_channel(constant: Constant, shape: Sequence[Dim]) -> Deferred:
    """A constant that an ``(N, C, ...)`` tensor is multiplied with or added to, as ``(C,)``.

    1. After ONNX has aligned shapes *at the right*, the constant varies along axis 1 only. So a rank-1
       ``(C,)`` meets the width of an image, not its channels, and is refused unless the tensor is ``(N, C)``.
    2. It makes the tensor no larger: where it has more than one element on an axis, the tensor is known to
       have as many. An axis on which it repeats one value counts as constant.

    Raises:
        NotExact: One of the two does not hold.
    """
    seen = constant.shape
    if constant.ndim > len(shape):
        raise NotExact(Reason.BROADCAST, f"a constant of shape {seen} raises the rank of a tensor {shape}")
    aligned: Constant = constant.reshape((1,) * (len(shape) - constant.ndim) + seen)
    for axis, dim in enumerate(shape):
        size = aligned.shape[axis]
        if size == 1:
            continue
        if size != dim:
            raise NotExact(
                Reason.BROADCAST, f"a constant of shape {seen} broadcasts a tensor {tuple(shape)} on axis {axis}"
            )
        if axis != 1:
            first = np.take(aligned, [0], axis=axis)
            if not np.array_equal(np.broadcast_to(first, aligned.shape), aligned):
                raise NotExact(
                    Reason.BROADCAST, f"a constant of shape {seen} varies along axis {axis} of {tuple(shape)}"
                )
            aligned = first
    channels = shape[1]
    if not isinstance(channels, int):
        raise NotExact(Reason.UNKNOWN_SHAPE, f"the number of channels of {tuple(shape)} is unknown")
    flat = aligned.astype(np.float64).reshape(-1)
    return Deferred((channels,), lambda: np.broadcast_to(flat, (channels,)).copy())
