"""What a graph has lost for certain when it has computed some of the samples, whatever the others will bring."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.accuracy import joined
from build_engine.graph import Tensors
from build_engine.quantize.outputs import Array, faint_square, rows_of_parts


@dataclass
class _Part:
    """One part of a float output over the samples: sums of squares, and of products with what a graph answers.

    Attributes:
        figure: What `judge.agreement` calls it.
        rows: Which rows along `axis` belong to it; all where it is None.
        axis: See there.
        squares: Of the float graph's answer, per sample.
        extra: What its cosine counts beside them.
        products: Sum over the samples seen, of the float graph's answer times the other's.
        given: Sum of the other's squares.
    """

    figure: str
    rows: Array | None
    axis: int
    squares: Sequence[float]
    extra: float
    products: float = 0.0
    given: float = 0.0

    def of(self, array: Array) -> Array:
        """The part of one sample's output, flat."""
        taken = array if self.rows is None else np.compress(self.rows, array, self.axis)
        return taken.astype(np.float64).ravel()

    def most(self, seen: int) -> float:
        """The best cosine that may still come out; a NaN where an answer was not finite.

        With `p` products and `q` squares behind it and `r` the float graph's squares ahead, an answer ahead that is `t`
        times the float graph's makes `(p + t r) / sqrt(q + t^2 r)`, which is largest at `t = q / p`:
        `sqrt(p^2 / q + r)`. By Cauchy and Schwarz no other answer makes more.
        """
        ahead, whole = sum(self.squares[seen:]), sum(self.squares) + self.extra
        p, q = self.products + self.extra, self.given + self.extra
        if not math.isfinite(p * q):
            return math.nan
        behind = p * p / q if p > 0 and q > 0 else 0.0
        return math.sqrt((behind + ahead) / whole) if whole else 1.0


class Losing:
    """A lower bound of the points that `judge.agreement` will say are lost: cosines and shares of equal elements.

    Figures that need all samples (detections, expected top-1) bound nothing.

    Args:
        expected: The float graph's outputs, per sample.
        but: Outputs that are not compared by themselves.
    """

    def __init__(self, expected: Sequence[Tensors], but: Collection[str] = ()) -> None:
        self._expected, self._seen = expected, 0
        self._parts: dict[str, list[_Part]] = {}
        self._unequal: dict[str, int] = {}
        for name in expected[0]:
            shapes = {entry[name].shape for entry in expected}
            if name in but or len(shapes) > 1 or not expected[0][name].ndim or not expected[0][name].size:
                continue
            if expected[0][name].dtype.kind in "biu":
                self._unequal[name] = 0
                continue
            self._parts[name] = []
            whole = joined(expected, name)
            for suffix, (rows, axis) in rows_of_parts(whole).items():
                extra = faint_square(whole if rows is None else np.compress(rows, whole, axis))
                part = _Part(f"{name}{suffix}: cosine", rows, axis, [], extra)
                part.squares = [float(flat @ flat) for flat in (part.of(entry[name]) for entry in expected)]
                self._parts[name].append(part)

    def add(self, outputs: Tensors) -> tuple[float, str]:
        """Take the graph's outputs for the next sample.

        Returns:
            Points that are lost for certain by now, and in which figure; what is not finite counts for nothing here.
        """
        wanted = self._expected[self._seen]
        self._seen += 1
        for name in [*self._parts, *self._unequal]:
            if outputs[name].shape != wanted[name].shape:  # a list of another length is judged as such
                self._parts.pop(name, None)
                self._unequal.pop(name, None)
        for name, parts in self._parts.items():
            for part in parts:
                a, b = part.of(wanted[name]), part.of(outputs[name])
                part.products += float(a @ b)
                part.given += float(b @ b)
        for name in self._unequal:
            self._unequal[name] += int(np.count_nonzero(outputs[name] != wanted[name]))
        return self._worst()

    def _worst(self) -> tuple[float, str]:
        lost = {part.figure: 1 - part.most(self._seen) for parts in self._parts.values() for part in parts}
        for name, count in self._unequal.items():
            lost[f"{name}: equal"] = count / (len(self._expected) * self._expected[0][name].size)
        figure = max((one for one in lost if math.isfinite(lost[one])), key=lost.__getitem__, default="nothing")
        return 100 * lost.get(figure, 0.0), figure
