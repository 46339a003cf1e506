from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.fuse.algebra.deferred import Array
from build_engine.fuse.algebra.exactness import NotExact, Reason
from build_engine.fuse.algebra.form import Form

OPEN = -1  # the size of a batch that is left open


@dataclass(frozen=True, eq=False)
class Write:
    """Constants written into a box of a tensor.

    Args:
        box: ``(start, stop)`` per axis of the tensor in its original order.
        value: ``(C_box,)``, one value per channel of the box.
    """

    box: tuple[tuple[int, int], ...]
    value: Array


@dataclass(frozen=True, eq=False)
class Framed:
    """A tensor in a border that is being painted: padded first, then written over row by row.

    Blocks that pad with their batch norm's bias (Diverse Branch Block, ECB) reach ONNX as a Pad followed by
    four writes, with transposes between them. In between, the tensor has no convolution form; when the
    whole border continues the tensor's bias, it has.

    Args:
        inner: The tensor inside the border.
        shape: The whole tensor's sizes, ``(N, C, *spatial)``, border included; N may be `OPEN`.
        pads: The border's width, ``(begin, end)`` per spatial axis.
        writes: The border's contents, later ones over earlier ones.
        order: Which original axis each axis of the tensor is now.
    """

    inner: Form
    shape: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    writes: tuple[Write, ...]
    order: tuple[int, ...]

    def transposed(self, permutation: Sequence[int]) -> Framed:
        """The same tensor with its axes permuted."""
        return dataclasses.replace(self, order=tuple(self.order[axis] for axis in permutation))

    def written(self, box: Sequence[tuple[int, int]], values: Array) -> Framed:
        """The tensor after constants are written into a box.

        1. The constants vary along channels only.

        Args:
            box: ``(start, stop)`` per axis as the axes are ordered now.
            values: The constants, in the box's shape; other axes than that of the channels may be 1.

        Raises:
            NotExact: They vary along other axes.
        """
        channel = self.order.index(1)
        flat = np.moveaxis(values, channel, 0).reshape(values.shape[channel], -1)
        if np.any(flat != flat[:, :1]):
            raise NotExact(Reason.BORDER, "constants written into the border vary along it")
        original: list[tuple[int, int]] = [(0, 0)] * len(box)
        for axis, bounds in zip(self.order, box, strict=True):
            original[axis] = bounds
        write = Write(tuple(original), flat[:, 0].astype(np.float64))
        return dataclasses.replace(self, writes=(*self.writes, write))

    def settled(self) -> Form:
        """The convolution form of the tensor as it is now.

        1. The axes are back in their original order.
        2. Nothing was written inside the border, and every write covers whole channels of the whole batch.
        3. `Form.padded` accepts the border, which therefore holds one value per channel, the tensor's bias.

        Raises:
            NotExact: One of these does not hold.
        """
        if self.order != tuple(range(len(self.shape))):
            raise NotExact(Reason.BORDER, "the axes are permuted")
        for write in self.writes:
            if write.box[0] != (0, self.shape[0]) or write.box[1] != (0, self.shape[1]):
                raise NotExact(Reason.BORDER, "a write covers some channels or images only")
        value: Array | None = None
        for cell in self._border_cells():
            latest = next((w.value for w in reversed(self.writes) if _covers(w.box[2:], cell)), None)
            if latest is None:
                raise NotExact(Reason.BORDER, "part of the border is not written")
            if value is not None and not np.array_equal(value, latest):
                raise NotExact(Reason.BORDER, "the border holds different values at different places")
            value = latest
        return self.inner.padded(self.pads, 0.0 if value is None else value)

    def _border_cells(self) -> list[tuple[int, ...]]:
        """One position per part of the border between any two lines along which a write begins or ends.

        Raises:
            NotExact: A write reaches inside the border.
        """
        positions = []
        for axis, (size, (begin, end)) in enumerate(zip(self.shape[2:], self.pads, strict=True)):
            lines = {0, begin, size - end}
            for write in self.writes:
                lines.update(write.box[axis + 2])
            positions.append(sorted(line for line in lines if 0 <= line < size))
        border = []
        for cell in itertools.product(*positions):
            inside = all(
                begin <= at < size - end for at, size, (begin, end) in zip(cell, self.shape[2:], self.pads, strict=True)
            )
            if not inside:
                border.append(cell)
            elif any(_covers(write.box[2:], cell) for write in self.writes):
                raise NotExact(Reason.BORDER, "a write reaches inside the border")
        return border


def _covers(box: Sequence[tuple[int, int]], cell: Sequence[int]) -> bool:
    return all(start <= at < stop for at, (start, stop) in zip(cell, box, strict=True))
