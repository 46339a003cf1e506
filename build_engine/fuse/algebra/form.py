from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from build_engine.fuse.algebra.compose import compose
from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.exactness import NotExact, Reason
from build_engine.fuse.algebra.placed import Placed
from build_engine.fuse.algebra.transposed import TransposedConvolution
from build_engine.fuse.algebra.window import Window


class Source(Protocol):
    """An earlier tensor; anything hashable that knows its sizes."""

    def __hash__(self) -> int: ...


Term: TypeAlias = "Convolution | Placed | TransposedConvolution"

# Exporters compute a padding constant in float32 that we recompute in float64. It is a difference of two numbers
# (beta - mean gamma / sigma), so its rounding is that of the larger ones: relative to the largest channel, not its own.
_FLOAT32_ROUNDING = 4e-7


@dataclass(frozen=True, eq=False)
class Form:
    """A tensor as a sum of convolutions of earlier tensors: ``y = sum_i conv_i(x_i) + bias``.

    Args:
        terms: One convolution per source, all with the same output channels.
        bias: ``(C_out,)``; None is exactly zero.
        sizes: Each source's spatial sizes, None where unknown.
    """

    terms: Mapping[Source, Term]
    bias: Deferred | None
    sizes: Mapping[Source, tuple[int | None, ...]]

    @classmethod
    def of(cls, source: Source, channels: int, sizes: Sequence[int | None]) -> Form:
        """The tensor itself."""
        known = tuple(sizes)
        return cls({source: Convolution.identity(channels, len(known))}, None, {source: known})

    @property
    def c_out(self) -> int:
        """Number of channels of the tensor."""
        return next(iter(self.terms.values())).c_out

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return next(iter(self.terms.values())).axes

    @property
    def is_pointwise(self) -> bool:
        """Whether every position depends on the sources at the same position only."""
        return all(term.is_pointwise for term in self.terms.values())

    def bias_value(self) -> Array:
        """``(C_out,)``, zeros where there is no bias."""
        return np.zeros(self.c_out) if self.bias is None else self.bias.value

    def is_as_large_as(self, other: Form, axis: int) -> bool:
        """Whether two tensors are known to be of equal size on an axis: 0 for the batch, 2 and on for the image.

        They are if a source in common is read with the same stride and slack (see `Window.size`).
        """
        for source, term in self.terms.items():
            twin = other.terms.get(source)
            if isinstance(term, Convolution | Placed) and isinstance(twin, Convolution | Placed):
                if axis == 0:
                    return True
                one, two = term.windows[axis - 2], twin.windows[axis - 2]
                if one.stride == two.stride and one.slack == two.slack:
                    return True
        return False

    def scaled(self, scale: Deferred) -> Form:
        """Each channel times its factor; ``scale: (C_out,)``."""
        bias = self.bias
        scaled = None if bias is None else Deferred(bias.shape, lambda: bias.value * scale.value)
        return Form({s: term.scaled(scale) for s, term in self.terms.items()}, scaled, self.sizes)

    def shifted(self, shift: Deferred) -> Form:
        """Each channel plus a constant; ``shift: (C_out,)``."""
        return Form(self.terms, _sum(self.bias, shift), self.sizes)

    def plus(self, *others: Form) -> Form:
        """The sum of tensors of equal shape; sources in common are merged, branches of zeros dropped.

        Raises:
            NotExact: A common source's windows cannot be aligned, see `Convolution.plus`.
        """
        terms: dict[Source, Term] = {}
        sizes: dict[Source, tuple[int | None, ...]] = {}
        bias: Deferred | None = None
        for form in (self, *others):
            sizes.update(form.sizes)
            bias = _sum(bias, form.bias)
            for source, term in form.terms.items():
                if not _is_zero(term):
                    mine = terms.get(source)
                    terms[source] = term if mine is None else _added(mine, term, form.sizes[source])
        return Form(terms or dict(self.terms), bias, sizes)

    def placed(self, start: int, total: int) -> Form:
        """The tensor as channels ``[start, start + C_out)`` of a concatenation, the others zero."""
        terms: dict[Source, Term] = {}
        for source, term in self.terms.items():
            if isinstance(term, Convolution):
                terms[source] = Placed(term, start, total, 0, term.c_in)
            elif isinstance(term, Placed):
                terms[source] = replace(term, start=start + term.start, c_out=total)
            else:
                rows = [-1] * start + list(range(self.c_out)) + [-1] * (total - start - self.c_out)
                terms[source] = term.then(Convolution.rows(self.c_out, rows, self.axes))
        bias, stop = self.bias, start + self.c_out
        if bias is None:
            return Form(terms, None, self.sizes)
        return Form(terms, Deferred((total,), lambda: np.pad(bias.value, (start, total - stop))), self.sizes)

    def selected(self, rows: Sequence[int]) -> Form:
        """The tensor made of some channels, in any order; -1 makes a channel of zeros.

        A range that takes whole groups of a term keeps them (`Placed.narrowed`) and one that takes nothing of a term
        drops it; other terms are made dense.
        """
        if list(rows) == list(range(self.c_out)):
            return self
        picks = Convolution.rows(self.c_out, rows, self.axes)
        is_range = len(rows) > 0 and rows[0] >= 0 and list(rows) == list(range(rows[0], rows[0] + len(rows)))
        terms: dict[Source, Term] = {}
        for source, term in self.terms.items():
            kept = None
            if is_range and not isinstance(term, TransposedConvolution):
                placed = term if isinstance(term, Placed) else Placed.whole(term)
                if placed.start > rows[-1] or placed.stop <= rows[0]:
                    continue
                kept = placed.narrowed(rows[0], rows[-1] + 1)
            terms[source] = _then(term, picks) if kept is None else kept.settled()
        if not terms:
            return self.then(picks)
        bias = self.bias
        if bias is None:
            return Form(terms, None, self.sizes)
        return Form(terms, Deferred((len(rows),), lambda: _through(picks, bias.value)), self.sizes)

    def padded(self, pads: Sequence[tuple[int, int]], value: Array | float = 0.0) -> Form:
        """The tensor with a constant border; negative pads crop.

        1. Beyond the tensor's ends every term reads only beyond its source's ends (`Window.padded`).
        2. What is left there, the bias, is the border's value, channel by channel. What float32
           rounds away of the largest bias counts as equal.

        Args:
            pads: ``(begin, end)`` per spatial axis.
            value: The border's value, a scalar or ``(C_out,)``.

        Raises:
            NotExact: One of the two does not hold.
        """
        if all(begin == 0 and end == 0 for begin, end in pads):
            return self
        terms: dict[Source, Term] = {}
        for source, term in self.terms.items():
            if isinstance(term, TransposedConvolution):
                terms[source] = term.padded(pads)
                continue
            windows = zip(term.windows, pads, self.sizes[source], strict=True)
            terms[source] = term.with_windows(
                tuple(window.padded(begin, end, size) for window, (begin, end), size in windows)
            )
        if any(begin > 0 or end > 0 for begin, end in pads):
            bias = self.bias_value()
            gap = np.abs(bias - value)
            if np.any(gap > _FLOAT32_ROUNDING * np.max(np.abs(bias), initial=0.0)):
                worst = int(np.argmax(gap))
                border = float(np.broadcast_to(value, bias.shape)[worst])
                raise NotExact(
                    Reason.BORDER,
                    f"the border holds {border:.6g} where channel {worst} of the tensor continues as "
                    f"{bias[worst]:.6g}, its bias",
                )
        return Form(terms, self.bias, self.sizes)

    def then(self, second: Convolution) -> Form:
        """An unpadded convolution of this tensor; always exact, see `compose`.

        Raises:
            NotExact: A term is a transposed convolution and the second one is not pointwise.
        """
        terms = {source: _then(term, second) for source, term in self.terms.items()}
        bias = self.bias
        if bias is None or second.is_identity:
            return Form(terms, bias, self.sizes)
        return Form(terms, Deferred((second.c_out,), lambda: _through(second, bias.value)), self.sizes)

    def convolved(self, weight: Deferred, windows: Sequence[Window], groups: int, *, is_zero: bool = False) -> Form:
        """A convolution of this tensor; its padding is judged by `padded`, the rest is `then`.

        Padding at the end that no window reaches, as with an even size and stride 2, counts as none.

        Raises:
            NotExact: The padding meets a bias or real pixels.
        """
        bare = tuple(Window(w.kernel, w.stride, w.dilation) for w in windows)
        reached = [
            (w.begin, w.end if size is None else w.reached_end(size))
            for w, size in zip(windows, self._output_sizes(), strict=True)
        ]
        return self.padded(reached).then(Convolution(weight, bare, groups, is_zero=is_zero))

    def _output_sizes(self) -> tuple[int | None, ...]:
        """This tensor's own spatial sizes, where a source's are known."""
        source, term = next(iter(self.terms.items()))
        if isinstance(term, TransposedConvolution):
            return (None,) * term.axes
        return tuple(
            None if size is None else window.size(size)
            for window, size in zip(term.windows, self.sizes[source], strict=True)
        )


def _then(term: Term, second: Convolution) -> Term:
    return compose(term, second) if isinstance(term, Convolution) else term.then(second)


def _is_zero(term: Term) -> bool:
    return isinstance(term, Convolution | Placed) and term.is_zero


def dense(term: Term) -> Convolution | TransposedConvolution:
    """A term without its place in a concatenation."""
    return term.dense() if isinstance(term, Placed) else term


def _added(one: Term, two: Term, sizes: tuple[int | None, ...]) -> Term:
    if isinstance(one, Placed) and isinstance(two, Placed):
        channels = [(t.start, t.part.c_out, t.first, t.part.c_in) for t in (one, two)]
        if channels[0] == channels[1]:
            return replace(one, part=one.part.plus(two.part, sizes))
        beside = one.beside(two, sizes) or two.beside(one, sizes)
        if beside is not None:
            return beside.settled()
    left, right = dense(one), dense(two)
    if isinstance(left, Convolution) and isinstance(right, Convolution):
        return left.plus(right, sizes)
    return left.plus(right, sizes) if isinstance(left, TransposedConvolution) else right.plus(left, sizes)


def _sum(one: Deferred | None, two: Deferred | None) -> Deferred | None:
    if one is None or two is None:
        return two if one is None else one
    return Deferred(one.shape, lambda: one.value + two.value)


def _through(second: Convolution, bias: Array) -> Array:
    """What a constant tensor becomes: ``sum_{m,k} W2[o, m, k] bias[m]``, ``(C_out,)``."""
    taps = tuple(range(2, second.weight.value.ndim))
    summed: Array = second.weight.value.sum(axis=taps).reshape(second.groups, -1, second.weight.shape[1])
    return np.asarray(summed @ bias.reshape(second.groups, -1, 1), dtype=np.float64).reshape(-1)
