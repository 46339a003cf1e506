"""Detection, distance and area metrics in plain numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Detections:
    """Answers for one frame: boxes (M, 4) xyxy, labels (M,), scores (M,), distances (M,) in metres."""

    boxes: Array
    labels: NDArray[np.int64]
    scores: Array
    distances: Array


@dataclass(frozen=True)
class Objects:
    """Truth of one frame: boxes (M, 4) xyxy, labels (M,), distances (M,) in metres, ignored (M,)."""

    boxes: Array
    labels: NDArray[np.int64]
    distances: Array
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """One label's detections over all frames, best first.

    Attributes:
        scores: (M,).
        hits: (M,) 1 for a true positive, 0 for a false one, -1 for neither (it found something ignored).
        found: (M,) distance stated, metres.
        true: (M,) distance of the matched object; meaningful for hits.
        heights: (M,) height of the detected box in pixels.
        frames: (M,) frame of each detection.
        count: How many objects count.
    """

    scores: Array
    hits: NDArray[np.int64]
    found: Array
    true: Array
    heights: Array
    frames: NDArray[np.int64]
    count: int


def iou(a: Array, b: Array) -> Array:
    """Intersection over union (M, N) of boxes a (M, 4) and b (N, 4), xyxy."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    union: Array = areas[0][:, None] + areas[1][None] - overlap
    shared: Array = overlap / np.maximum(union, 1e-9)
    return shared


def match(
    detections: list[Detections],
    truth: list[Objects],
    label: int,
    threshold: float = 0.5,
    band: tuple[float, float] | None = None,
) -> Matches:
    """Match one label's detections to objects, as COCO does.

    Each detection, best first, takes the free counting object of its label that it overlaps most. Failing
    that, one that overlaps an ignored object of its label by `threshold`, or lies inside an ignored object of any
    label by that share, is neither right nor wrong.

    Args:
        detections: One entry per frame.
        truth: One entry per frame.
        label: Index of the class.
        threshold: Least IoU of a hit.
        band: (from, to) metres. Objects outside are ignored, and so are unmatched detections that state a
            distance outside.
    """
    rows: list[tuple[float, int, float, float, float, int]] = []
    count = 0
    for frame, (found, objects) in enumerate(zip(detections, truth, strict=True)):
        mine = objects.labels == label
        aside = objects.ignored.copy()
        if band is not None:
            aside |= (objects.distances < band[0]) | (objects.distances >= band[1])
        count += int((mine & ~aside).sum())
        picked = np.flatnonzero(found.labels == label)
        picked = picked[np.argsort(-found.scores[picked], kind="stable")]
        overlaps = iou(found.boxes[picked], objects.boxes)
        free = mine & ~aside
        for index, row in zip(picked, overlaps, strict=True):
            hit, true = 0, 0.0
            candidates = np.where(free, row, 0.0)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best >= 0 and candidates[best] >= threshold:
                free[best] = False
                hit, true = 1, float(objects.distances[best])
            else:
                aside_hit = (row[mine & aside] >= threshold).any() or _inside(found.boxes[index], objects, threshold)
                elsewhere = band is not None and not band[0] <= found.distances[index] < band[1]
                hit = -1 if aside_hit or elsewhere else 0
            box = found.boxes[index]
            rows.append(
                (float(found.scores[index]), hit, float(found.distances[index]), true, float(box[3] - box[1]), frame)
            )
    table = np.array(rows, np.float64).reshape(-1, 6)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    return Matches(
        table[:, 0],
        table[:, 1].astype(np.int64),
        table[:, 2],
        table[:, 3],
        table[:, 4],
        table[:, 5].astype(np.int64),
        count,
    )


def _inside(box: Array, objects: Objects, threshold: float) -> bool:
    others = objects.boxes[objects.ignored]
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=1)
    area = max(float(np.prod(box[2:] - box[:2])), 1e-9)
    return bool((overlap / area >= max(threshold, 0.5)).any())


def average_precision(matches: Matches) -> float:
    """Area under the interpolated precision-recall curve; NaN when nothing counts."""
    if matches.count == 0:
        return float("nan")
    judged = matches.hits[matches.hits >= 0]
    hits = np.cumsum(judged == 1)
    precision = hits / np.arange(1, len(judged) + 1)
    recall = hits / matches.count
    best = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(np.concatenate([[0.0], recall]))
    return float((best * steps).sum())


def relative_distance_error(matches: list[Matches], least_score: float) -> float:
    """Mean of |stated - true| / true over hits with at least this score; NaN without hits."""
    errors = [
        np.abs(m.found - m.true)[keep] / m.true[keep]
        for m in matches
        if (keep := (m.hits == 1) & (m.scores >= least_score)).any()
    ]
    return float(np.concatenate(errors).mean()) if errors else float("nan")


def best_f1_threshold(matches: list[Matches]) -> tuple[float, float]:
    """Score threshold with the highest F1 over all labels together, and that F1."""
    scores = np.concatenate([m.scores for m in matches])
    hits = np.concatenate([m.hits for m in matches])
    total = sum(m.count for m in matches)
    order = np.argsort(-scores, kind="stable")
    order = order[hits[order] >= 0]
    good = np.cumsum(hits[order] == 1)
    f1 = 2 * good / (np.arange(1, len(order) + 1) + total)
    best = int(f1.argmax())
    return float(scores[order][best]), float(f1[best])


class AreaIou:
    """Intersection over union of a binary area, summed over frames."""

    def __init__(self) -> None:
        self._shared = self._either = 0

    def add(self, found: NDArray[np.bool_], true: NDArray[np.bool_]) -> None:
        """Count one frame's masks of one shape."""
        self._shared += int((found & true).sum())
        self._either += int((found | true).sum())

    @property
    def value(self) -> float:
        """IoU so far; NaN before any area was seen."""
        return self._shared / self._either if self._either else float("nan")
