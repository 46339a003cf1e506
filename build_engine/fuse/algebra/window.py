from __future__ import annotations

import math
from dataclasses import dataclass

from build_engine.fuse.algebra.exactness import NotExact, Reason


@dataclass(frozen=True)
class Window:
    """How a convolution reads its source along one spatial axis.

    Output ``p`` reads the source at ``stride * p + dilation * k - begin`` for ``k`` in ``[0, kernel)``,
    zero beyond the source's ends. Two derived numbers make the algebra short: ``last``, where the last
    tap of output 0 lies, and ``slack = end - last``, the only number besides the stride that the output
    size depends on.

    Args:
        kernel: Number of taps.
        stride: Step of the window.
        dilation: Distance of neighbouring taps.
        begin: Zeros before the source; negative crops.
        end: Zeros after the source; negative crops.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0

    @property
    def last(self) -> int:
        """Source position of the last tap of output 0."""
        return self.dilation * (self.kernel - 1) - self.begin

    @property
    def slack(self) -> int:
        """``size(n) = (n + slack - 1) // stride + 1``."""
        return self.end - self.last

    @property
    def is_identity(self) -> bool:
        """Whether the window reads exactly its own position."""
        return self.kernel == 1 and self.stride == 1 and self.begin == 0 and self.end == 0

    def size(self, source: int) -> int:
        """Output size for a source of this size."""
        return (source + self.slack - 1) // self.stride + 1

    def reached_end(self, source: int) -> int:
        """The padding at the end that the last window reads; less than `end` where the stride stops short."""
        return min(self.end, max(0, self.stride * (self.size(source) - 1) + self.last - (source - 1)))

    def padded(self, begin: int, end: int, source: int | None) -> Window:
        """The window of this window's output after ``begin`` and ``end`` more positions around it.

        Positions beyond this window's output read the source beyond its ends, so they hold the form's
        bias and nothing else if:

        1. ``begin > 0``: the last tap of output -1 lies before the source: ``last < stride``.
        2. ``end > 0``: the first tap of the first output too many lies after the source: where the
           source's size ``n`` is known, ``stride * size(n) - begin >= n``; else ``slack >= begin``,
           which implies it for every ``n``.

        Args:
            begin: Positions before; negative crops, which is always exact.
            end: Positions after; negative crops.
            source: The source's size, if known.

        Raises:
            NotExact: The border would read into the source.
        """
        if begin > 0 and self.last >= self.stride:
            raise NotExact(
                Reason.BORDER,
                f"padding by {begin} would read real pixels through the {self.kernel}-tap window before it "
                f"(padded by {self.begin}), where zeros are expected",
            )
        if end > 0:
            beyond = (
                self.stride * self.size(source) - self.begin >= source
                if source is not None
                else self.slack >= self.begin
            )
            if not beyond:
                raise NotExact(
                    Reason.BORDER,
                    f"padding by {end} at the end would read real pixels through the {self.kernel}-tap, "
                    f"stride-{self.stride} window before it (padded by {self.end}), where zeros are expected",
                )
        return Window(
            self.kernel,
            self.stride,
            self.dilation,
            self.begin + self.stride * begin,
            self.end + self.stride * end,
        )

    def then(self, following: Window) -> Window:
        """The window of an *unpadded* ``following`` window on this window's output; always exact.

        Taps of both add up: ``stride * following.dilation * k2 + dilation * k1 - begin``.
        """
        steps = [self.dilation] * (self.kernel > 1) + [self.stride * following.dilation] * (following.kernel > 1)
        dilation = math.gcd(*steps) if steps else 1
        reach = self.dilation * (self.kernel - 1) + self.stride * following.dilation * (following.kernel - 1)
        return Window(reach // dilation + 1, self.stride * following.stride, dilation, self.begin, self.end)

    def union(self, other: Window, source: int | None) -> Window:
        """The smallest window whose taps include both windows' taps.

        1. Strides are equal.
        2. Output sizes are equal: equal ``slack``, or equal sizes at the known source size.

        Raises:
            NotExact: One of the two does not hold.
        """
        if self.stride != other.stride:
            raise NotExact(Reason.GEOMETRY, f"branches step by {self.stride} and by {other.stride}")
        if self.slack != other.slack and (source is None or self.size(source) != other.size(source)):
            raise NotExact(
                Reason.GEOMETRY,
                f"branches differ in size (kernel {self.kernel} padded {self.begin}, {self.end} "
                f"and kernel {other.kernel} padded {other.begin}, {other.end})",
            )
        begin, last = max(self.begin, other.begin), max(self.last, other.last)
        steps = [w.dilation for w in (self, other) if w.kernel > 1]
        dilation = math.gcd(*steps, begin - self.begin, begin - other.begin) or 1
        return Window((last + begin) // dilation + 1, self.stride, dilation, begin, last + self.slack)

    def taps_in(self, grown: Window) -> slice:
        """Where this window's taps lie among those of a ``union`` it belongs to."""
        start = (grown.begin - self.begin) // grown.dilation
        step = self.dilation // grown.dilation if self.kernel > 1 else 1
        return slice(start, start + step * (self.kernel - 1) + 1, step)
