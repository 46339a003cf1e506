"""From the network's outputs to detections in a frame's own pixels and metres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.manifest import DetectionPostprocessing
from engine.preprocess import Placement


@dataclass(frozen=True)
class Detections:
    """The objects seen in one frame, best first.

    Attributes:
        scores: `(n,)` float32, 0 to 1.
        classes: `(n,)` int64 index into the labels.
        boxes: `(n, 4)` float32: x_min, y_min, x_max, y_max in frame pixels, clipped to the frame.
        distances: `(n,)` float32 metres; None where the network has none, or the camera's focal length is unknown.
        finite: Whether every score, box and distance that was answered is a finite number, and every class has a
            label. A class that has none is answered as the nearest that does.
    """

    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32] | None
    finite: bool


def detections(
    outputs: Mapping[str, npt.NDArray[Any]],
    entry: int,
    spec: DetectionPostprocessing,
    placement: Placement,
    frame_width: int,
    frame_height: int,
    focal_px: float | None,
) -> Detections:
    """Decode one entry of a batch.

    Args:
        outputs: The engine's outputs by name, batch first.
        entry: Which entry of the batch.
        spec: The bundle's postprocessing.
        placement: Where the frame lay in the network input.
        frame_width: Columns of the frame.
        frame_height: Rows of the frame.
        focal_px: The camera's horizontal focal length in frame pixels; None where unknown.
    """
    scores = np.asarray(outputs[spec.scores][entry], np.float32)
    keep = np.flatnonzero(~(scores < spec.score_threshold))  # a NaN score is kept, and makes the answer invalid
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    scores = scores[keep]
    boxes = placement.to_frame(np.asarray(outputs[spec.boxes][entry], np.float32)[keep])
    finite = bool(np.isfinite(scores).all() and np.isfinite(boxes).all())
    classes = np.asarray(outputs[spec.classes][entry], np.int64)[keep]
    labelled = np.clip(classes, 0, len(spec.labels) - 1)
    finite = finite and bool((classes == labelled).all())
    limits = np.array([frame_width, frame_height] * 2, np.float32)
    distances = None
    if spec.distances is not None and spec.reference_focal_px is not None:
        virtual = np.asarray(outputs[spec.distances][entry], np.float32)[keep]
        finite = finite and bool(np.isfinite(virtual).all())
        if focal_px is not None:
            distances = (virtual * (focal_px * placement.scale_x / spec.reference_focal_px)).astype(np.float32)
    return Detections(
        scores=scores,
        classes=labelled,
        boxes=np.clip(boxes, 0, limits).astype(np.float32),
        distances=distances,
        finite=finite,
    )
