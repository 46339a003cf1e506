"""The extension that answers with the best classes instead of the scores themselves."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

_LENGTH = struct.Struct("<I")


def best_classes(scores: npt.NDArray[Any], count: int) -> tuple[tuple[int, ...], bytes]:
    """The best classes of each entry, as `score:index`, the best first and ties in the order of their index.

    Args:
        scores: `(entries, classes)`.
        count: How many; no more than there are.

    Returns:
        The shape, `(entries, count)`, and the BYTES elements: each its length in 4 bytes, little-endian, then its text.
    """
    entries, classes = scores.shape
    count = min(count, classes)
    elements: list[bytes] = []
    for row in scores:
        ascending = np.argsort(row[::-1], kind="stable")  # reversed, so that the first of a tie comes out first
        for index in (classes - 1 - ascending[::-1][:count]).tolist():
            score = row[index].item()
            text = (f"{score:f}" if isinstance(score, float) else f"{int(score)}") + f":{index}"
            elements += (_LENGTH.pack(len(text)), text.encode())
    return (entries, count), b"".join(elements)
