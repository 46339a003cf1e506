from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.fuse.algebra.compose import compose
from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.window import Window


@dataclass(frozen=True, eq=False)
class Placed:
    """A convolution that reads a range of its source's channels and makes a range of a concatenation, the rest zero.

    Kept apart from a `Convolution` with rows and columns of zeros so that a norm or a depthwise convolution after a
    concatenation can go back into its parts, and so that groups stay groups under slices and concatenations.

    Args:
        part: Reads channels ``[first, first + part.c_in)`` and makes channels ``[start, start + part.c_out)``.
        start: The first channel that it makes.
        c_out: Number of channels of the whole.
        first: The first channel that it reads.
        c_in: Number of channels of the source.
    """

    part: Convolution
    start: int
    c_out: int
    first: int
    c_in: int
    is_identity: bool = False

    @classmethod
    def whole(cls, part: Convolution) -> Placed:
        """A convolution that reads all and makes all."""
        return cls(part, 0, part.c_out, 0, part.c_in)

    @property
    def stop(self) -> int:
        """The channel after the last that it makes."""
        return self.start + self.part.c_out

    @property
    def reads_all(self) -> bool:
        """Whether it reads every channel of its source."""
        return self.part.c_in == self.c_in

    @property
    def makes_all(self) -> bool:
        """Whether it makes every channel of the whole."""
        return self.part.c_out == self.c_out

    @property
    def windows(self) -> tuple[Window, ...]:
        """One per spatial axis."""
        return self.part.windows

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return self.part.axes

    @property
    def is_pointwise(self) -> bool:
        """Whether every output position reads its own input position only."""
        return self.part.is_pointwise

    @property
    def is_zero(self) -> bool:
        """Known to return zeros."""
        return self.part.is_zero

    def scaled(self, scale: Deferred) -> Placed:
        """Every output channel times its factor; ``scale: (C_out,)``."""
        return dataclasses.replace(self, part=self.part.scaled(self._rows(scale)))

    def with_windows(self, windows: tuple[Window, ...]) -> Placed:
        """The same taps under other paddings."""
        return dataclasses.replace(self, part=self.part.with_windows(windows))

    def then(self, second: Convolution) -> Convolution | Placed:
        """An unpadded convolution of the whole: of the part alone where it is depthwise."""
        if second.is_identity:
            return self
        if not second.is_depthwise:
            composed = compose(self._with_all_rows(), second)
            return dataclasses.replace(self, part=composed, start=0, c_out=second.c_out).settled()
        own = Convolution(self._rows(second.weight), second.windows, self.part.c_out)
        return dataclasses.replace(self, part=compose(self.part, own))

    def narrowed(self, start: int, stop: int) -> Placed | None:
        """Channels ``[start, stop)`` of the whole alone, as a whole; None where that does not keep groups whole.

        1. The part makes all of them, and has groups.
        2. They are whole groups of it.
        """
        part, start, stop = self.part, start - self.start, stop - self.start
        made, read = part.weight.shape[0] // part.groups, part.weight.shape[1]
        if part.groups == 1 or start < 0 or stop > part.c_out or start % made or stop % made:
            return None
        shape = (stop - start, *part.weight.shape[1:])
        weight = Deferred(shape, lambda: part.weight.value[start:stop])
        kept = dataclasses.replace(part, weight=weight, groups=shape[0] // made)
        return Placed(kept, 0, shape[0], self.first + start // made * read, self.c_in)

    def beside(self, other: Placed, sizes: Sequence[int | None]) -> Placed | None:
        """The sum with one that begins where this one ends, as one grouped convolution; None where it is not.

        1. The other reads the channels after those that this one reads, and makes those after what this one makes.
        2. Some multiple of both sizes of a group, in channels read and made, divides both parts.
        3. `Window.union` exists on every axis.

        Raises:
            NotExact: The windows cannot be aligned.
        """
        if (self.stop, self.first + self.part.c_in) != (other.start, other.first):
            return None
        parts = (self.part, other.part)
        read = math.lcm(*(part.weight.shape[1] for part in parts))
        groups = [part.c_in // read for part in parts]
        if any(part.c_in % read or part.groups % g for part, g in zip(parts, groups, strict=True)):
            return None
        if self.part.c_out * groups[1] != other.part.c_out * groups[0]:
            return None
        windows = tuple(a.union(b, n) for a, b, n in zip(self.windows, other.windows, sizes, strict=True))
        grown = [part.in_groups(g).grown(windows) for part, g in zip(parts, groups, strict=True)]
        shape = (sum(part.c_out for part in parts), *grown[0].weight.shape[1:])
        joined = Convolution(
            Deferred(shape, lambda: np.concatenate([part.weight.value for part in grown])),
            windows,
            sum(groups),
            is_identity=all(part.is_identity for part in parts),
        )
        return dataclasses.replace(self, part=joined)

    def settled(self) -> Convolution | Placed:
        """A convolution, where it reads all and makes all."""
        return self.part if self.reads_all and self.makes_all else self

    def dense(self) -> Convolution:
        """The same map as a convolution with rows and columns of zeros."""
        return self.widened()._with_all_rows()

    def widened(self) -> Placed:
        """The same map with a part that reads all channels, by columns of zeros."""
        part = self.part
        if self.reads_all:
            return self
        shape = (part.c_out, self.c_in, *part.weight.shape[2:])

        def compute() -> Array:
            weight = np.zeros(shape)
            weight[:, self.first : self.first + part.c_in] = part.in_groups(1).weight.value
            return weight

        wide = Convolution(Deferred(shape, compute), part.windows, is_zero=part.is_zero)
        return dataclasses.replace(self, part=wide, first=0)

    def _with_all_rows(self) -> Convolution:
        part = self.part
        if self.makes_all:
            return part
        shape = (self.c_out, part.c_in, *part.weight.shape[2:])

        def compute() -> Array:
            weight = np.zeros(shape)
            weight[self.start : self.stop] = part.in_groups(1).weight.value
            return weight

        return Convolution(Deferred(shape, compute), part.windows, is_zero=part.is_zero)

    def _rows(self, of_all: Deferred) -> Deferred:
        shape = (self.part.c_out, *of_all.shape[1:])
        return Deferred(shape, lambda: of_all.value[self.start : self.stop])
