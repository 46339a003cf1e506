"""Whether two engines see the same objects, whatever the order in which they list them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.manifest import DetectionPostprocessing
from engine.postprocess import Detections, detections
from engine.preprocess import Placement

MATCHING_IOU = 0.5
_NETWORK = Placement(scale_x=1.0, scale_y=1.0, offset_x=0, offset_y=0, width=1, height=1)
_UNBOUNDED = 1 << 30


class DetectionAgreement:
    """F1 of one engine's detections against another's, over any number of batches.

    A detection that scores within `score_margin` of the threshold counts where both engines have it and is left out
    where only one has: rounding alone moves it across the threshold.

    Args:
        spec: How outputs are decoded.
        score_margin: Half-width of the band around the threshold.

    Attributes:
        names: The outputs that are compared here.
    """

    def __init__(self, spec: DetectionPostprocessing, score_margin: float) -> None:
        lowest = max(0.0, spec.score_threshold - score_margin)
        self.names = {spec.scores, spec.classes, spec.boxes} | ({spec.distances} if spec.distances else set())
        self._spec = spec.model_copy(update={"score_threshold": lowest})
        self._certain = spec.score_threshold + score_margin
        self._matched = 0
        self._unmatched = 0
        self._differences: list[float] = []

    @property
    def f1(self) -> float:
        """`2 matched / (2 matched + unmatched)`; 1 where neither engine saw anything."""
        total = 2 * self._matched + self._unmatched
        return 2 * self._matched / total if total else 1.0

    @property
    def distances(self) -> float | None:
        """1 less the mean relative difference in distance; None where nothing with a distance was matched."""
        if not self._differences:
            return None
        mean = float(np.mean(self._differences))
        return max(0.0, 1.0 - mean) if np.isfinite(mean) else 0.0

    def add(self, actual: Mapping[str, npt.NDArray[Any]], wanted: Mapping[str, npt.NDArray[Any]]) -> None:
        """Compare one batch.

        Args:
            actual: The engine's outputs by name, batch first.
            wanted: The outputs it should have had.
        """
        for entry in range(wanted[self._spec.scores].shape[0]):
            self._compare(self._decode(actual, entry), self._decode(wanted, entry))

    def _decode(self, outputs: Mapping[str, npt.NDArray[Any]], entry: int) -> Detections:
        focal = self._spec.reference_focal_px
        found = detections(outputs, entry, self._spec, _NETWORK, _UNBOUNDED, _UNBOUNDED, focal)
        return found if found.finite else replace(found, boxes=np.full_like(found.boxes, np.nan))

    def _compare(self, actual: Detections, wanted: Detections) -> None:
        same_class = actual.classes[None, :] == wanted.classes[:, None]
        overlap = np.where(same_class, intersection_over_union(wanted.boxes, actual.boxes), 0.0)
        free = np.ones(len(actual.scores), bool)
        lost = np.ones(len(wanted.scores), bool)
        for index in range(len(wanted.scores)):  # best first, as in the evaluation of COCO
            candidates = np.where(free, overlap[index], 0.0)
            best = int(candidates.argmax()) if len(candidates) else 0
            if len(candidates) and candidates[best] >= MATCHING_IOU:
                free[best] = lost[index] = False
                self._match(actual, best, wanted, index)
        certain = self._certain
        self._unmatched += int((~(actual.scores[free] < certain)).sum() + (wanted.scores[lost] >= certain).sum())

    def _match(self, actual: Detections, found: int, wanted: Detections, index: int) -> None:
        self._matched += 1
        if actual.distances is not None and wanted.distances is not None:
            reference = float(wanted.distances[index])
            difference = abs(float(actual.distances[found]) - reference)
            self._differences.append(difference / max(abs(reference), 1e-6))


def intersection_over_union(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Overlap of every box with every other; 0 for boxes that are empty or not finite.

    Args:
        left: `(m, 4)`: x_min, y_min, x_max, y_max.
        right: `(n, 4)`.

    Returns:
        `(m, n)`.
    """
    a = np.asarray(left, np.float64)[:, None]
    b = np.asarray(right, np.float64)[None, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    with np.errstate(invalid="ignore", divide="ignore"):
        overlap = np.where(union > 0, shared / union, 0.0)
    return np.nan_to_num(overlap, nan=0.0)
