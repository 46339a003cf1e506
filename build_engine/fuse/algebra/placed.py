from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from build_engine.fuse.algebra.compose import compose
from build_engine.fuse.algebra.convolution import Convolution
from build_engine.fuse.algebra.deferred import Array, Deferred
from build_engine.fuse.algebra.window import Window


@dataclass(frozen=True, eq=False)
class Placed:
    """A convolution that makes some channels of a concatenation, the others zero.

    Kept apart from a `Convolution` with rows of zeros so that a norm or a depthwise convolution after a
    concatenation can go back into its parts.

    Args:
        part: Makes channels ``[start, start + part.c_out)``.
        start: The first of them.
        c_out: Number of channels of the whole.
    """

    part: Convolution
    start: int
    c_out: int
    is_identity: bool = False

    @property
    def stop(self) -> int:
        """The channel after the last that it makes."""
        return self.start + self.part.c_out

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
            return compose(self.dense(), second)
        own = Convolution(self._rows(second.weight), second.windows, self.part.c_out)
        return dataclasses.replace(self, part=compose(self.part, own))

    def dense(self) -> Convolution:
        """The same map as a convolution with rows of zeros."""
        part = self.part
        shape = (self.c_out, part.c_in, *part.weight.shape[2:])

        def compute() -> Array:
            weight = np.zeros(shape)
            weight[self.start : self.stop] = part.in_groups(1).weight.value
            return weight

        return Convolution(Deferred(shape, compute), part.windows, is_zero=part.is_zero)

    def _rows(self, of_all: Deferred) -> Deferred:
        shape = (self.part.c_out, *of_all.shape[1:])
        return Deferred(shape, lambda: of_all.value[self.start : self.stop])
