"""Parts of a network's answer that are compared by themselves, and how: smoothly, and blind to what nobody sees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FAINT = 0.1
"""Probability below which no detector reports anything. Scores that stay below it in a whole sample are counted as if
each sample had one such score that is right: else agreement would be that of a detector's dark noise."""

Array = npt.NDArray[Any]


def parts(wanted: Array, given: Array) -> dict[str, tuple[Array, Array]]:
    """An output, split where coordinates would hide scores.

    Detectors answer `(N, 4 + classes, anchors)`, pixels beside probabilities: in one cosine the pixels are everything.

    Args:
        wanted: The float graph's.
        given: Another graph's, of the same shape.

    Returns:
        By a suffix of the output's name: what of the first, what of the second.
    """
    return {
        part: (wanted, given) if rows is None else (np.compress(rows, wanted, axis), np.compress(rows, given, axis))
        for part, (rows, axis) in rows_of_parts(wanted).items()
    }


def rows_of_parts(wanted: Array) -> dict[str, tuple[Array | None, int]]:
    """Where the parts of an output lie: which rows, along which axis; None is the whole output.

    Args:
        wanted: The float graph's, of all samples.
    """
    whole: dict[str, tuple[Array | None, int]] = {"": (None, 0)}
    if wanted.ndim != 3 or min(wanted.shape[1:]) < 5:
        return whole
    axis = 1 if wanted.shape[1] < wanted.shape[2] else 2
    other = (0, 3 - axis)
    scores = (wanted.min(axis=other) >= 0) & (wanted.max(axis=other) <= 1)
    if scores.all() or not scores.any():
        return whole
    return {" (scores)": (scores, axis), " (coordinates)": (~scores, axis)}


def cosine(wanted: Array, given: Array) -> float:
    """Cosine of two arrays, 0 to 1; of probabilities beside a faint one that is right (see `FAINT`)."""
    a, b = wanted.astype(np.float64).ravel(), given.astype(np.float64).ravel()
    extra = faint_square(wanted)
    norm = math.sqrt((float(a @ a) + extra) * (float(b @ b) + extra))
    if not norm:
        return float(np.array_equal(a, b))
    return max(0.0, min(1.0, (float(a @ b) + extra) / norm))


def relative_error(wanted: Array, given: Array) -> float:
    """`|given - wanted| / |wanted|` in the L2 norm, of probabilities beside a faint one; infinite where a value is."""
    a, b = wanted.astype(np.float64).ravel(), given.astype(np.float64).ravel()
    if not np.isfinite(b).all():
        return math.inf
    size = math.sqrt(float(a @ a) + faint_square(wanted))
    return float(np.linalg.norm(b - a)) / max(size, 1e-12)


def faint_square(wanted: Array) -> float:
    """Square of the scores that are counted beside probabilities; nothing beside other figures."""
    probable = wanted.size and wanted.min() >= 0 and wanted.max() <= 1
    return FAINT**2 * len(wanted) if probable else 0.0
