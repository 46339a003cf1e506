from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Deferred:
    """A float64 array that is computed when it is first looked at.

    Many forms are considered for every tensor and few are used. Their geometry decides which, so their
    weights are left as recipes until a form is chosen.

    Args:
        shape: The array's shape, known beforehand.
        compute: Makes the array; called at most once.
    """

    __slots__ = ("_compute", "_value", "shape")

    def __init__(self, shape: tuple[int, ...], compute: Callable[[], Array]) -> None:
        self.shape = shape
        self._compute: Callable[[], Array] | None = compute
        self._value: Array | None = None

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Deferred:
        """Wraps an array that is known already."""
        value = np.asarray(array, dtype=np.float64)
        return cls(value.shape, lambda: value)

    @property
    def value(self) -> Array:
        """The array, float64."""
        if self._compute is not None:
            self._value = self._compute()
            self._compute = None  # lets go of everything the recipe held on to
        return cast("Array", self._value)

    def __repr__(self) -> str:
        return f"Deferred{self.shape}"
