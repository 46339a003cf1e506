"""Scores a network on frames of a split. Knows no framework: the network is a function."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.dataset import Sample, render_split
from surround.metrics import (
    AreaIou,
    Detections,
    Matches,
    Objects,
    average_precision,
    best_f1_threshold,
    match,
    relative_distance_error,
)
from surround.spec import DISTANCE_BANDS_M, INPUT_SIZE, LABELS, REFERENCE_FOCAL_PX

Run = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.generic]]]
"""From frames (N, 384, 640, 3) uint8 RGB to the network's outputs by name, as `surround.model` documents them."""

POSTPROCESSING = Path(__file__).with_name("postprocessing.json")
"""How the network's outputs are read, score threshold included."""

_BATCH = 4


def score_threshold() -> float:
    """The score from which a detection is reported, chosen by F1 on the validation split."""
    return float(json.loads(POSTPROCESSING.read_text())["score_threshold"])


@dataclass
class Answers:
    """A network's answers for many frames beside the truth."""

    detections: list[Detections] = field(default_factory=list)
    truth: list[Objects] = field(default_factory=list)
    focal: list[float] = field(default_factory=list)
    area: AreaIou = field(default_factory=AreaIou)

    def add(self, outputs: dict[str, NDArray[np.generic]], n: int, sample: Sample) -> None:
        """Take row n of a batch's outputs as the answer for a sample."""
        truth, focal = sample.frame.truth, sample.camera.fx
        self.detections.append(
            Detections(
                outputs["boxes"][n].astype(np.float64),
                outputs["classes"][n].astype(np.int64),
                outputs["scores"][n].astype(np.float64),
                outputs["distances"][n].astype(np.float64) * focal / REFERENCE_FOCAL_PX,
            )
        )
        self.truth.append(
            Objects(truth.boxes.astype(np.float64), truth.labels, truth.distances.astype(np.float64), truth.ignored)
        )
        self.focal.append(focal)
        rows, columns = truth.drivable.shape
        found = cv2.resize(
            outputs["drivable"][n][0].astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR
        )
        self.area.add(found >= 0.5, truth.drivable)


def collect(run: Run, samples: Iterator[Sample], progress: Callable[[int], None] = lambda done: None) -> Answers:
    """Run the network over samples in small batches."""
    answers = Answers()
    waiting: list[Sample] = []

    def flush() -> None:
        outputs = run(np.stack([sample.frame.image for sample in waiting]))
        for n, sample in enumerate(waiting):
            answers.add(outputs, n, sample)
        progress(len(waiting))
        waiting.clear()

    for sample in samples:
        waiting.append(sample)
        if len(waiting) == _BATCH:
            flush()
    if waiting:
        flush()
    return answers


@lru_cache(maxsize=2)
def class_heights(frames: int = 480) -> tuple[float, ...]:
    """Mean real height in metres of each class on the training towns' validation frames.

    What a box-height baseline needs: distance = height * focal / box height. Fitted on boxes that count and do
    not touch the image's border.
    """
    heights: list[list[float]] = [[] for _ in LABELS]
    for sample in render_split("validation", 0, frames):
        truth, camera = sample.frame.truth, sample.camera
        for box, label, distance, ignored in zip(
            truth.boxes, truth.labels, truth.distances, truth.ignored, strict=True
        ):
            whole = box[0] > 0 and box[1] > 0 and box[2] < camera.width and box[3] < camera.height
            if whole and not ignored:
                heights[label].append(float(distance * (box[3] - box[1]) / camera.fy))
    return tuple(float(np.mean(values)) if values else 1.7 for values in heights)


def _baseline_error(answers: Answers, matches: list[Matches], least_score: float) -> float:
    errors = []
    for height, found in zip(class_heights(), matches, strict=True):
        keep = (found.hits == 1) & (found.scores >= least_score)
        focal = np.array(answers.focal)[found.frames[keep]]
        guess = height * focal / np.maximum(found.heights[keep], 1.0)
        errors.append(np.abs(guess - found.true[keep]) / found.true[keep])
    joined = np.concatenate(errors)
    return float(joined.mean()) if len(joined) else float("nan")


def _matches(answers: Answers) -> list[Matches]:
    return [match(answers.detections, answers.truth, label) for label in range(len(LABELS))]


def summarise(answers: Answers, threshold: float) -> dict[str, float]:
    """Every metric by name.

    Args:
        answers: What `collect` returned.
        threshold: Least score of the detections whose distance is judged.
    """
    matches = _matches(answers)
    precisions = [average_precision(found) for found in matches]
    result = {"mAP50": float(np.nanmean(precisions))}
    result |= {f"AP50_{name}": value for name, value in zip(LABELS, precisions, strict=True)}
    for band in DISTANCE_BANDS_M:
        inside = [match(answers.detections, answers.truth, label, band=band) for label in range(len(LABELS))]
        name = f"{band[0]:.0f}_{band[1]:.0f}m"
        result[f"mAP50_{name}"] = float(np.nanmean([average_precision(found) for found in inside]))
        result[f"distance_error_{name}"] = relative_distance_error(inside, threshold)
    result["distance_error"] = relative_distance_error(matches, threshold)
    result["distance_error_box_height"] = _baseline_error(answers, matches, threshold)
    result["drivable_iou"] = answers.area.value
    hits = sum(int(((m.hits == 1) & (m.scores >= threshold)).sum()) for m in matches)
    judged = sum(int(((m.hits >= 0) & (m.scores >= threshold)).sum()) for m in matches)
    result["precision"] = hits / judged if judged else float("nan")
    result["recall"] = hits / max(1, sum(m.count for m in matches))
    return result


def choose_threshold(answers: Answers) -> tuple[float, float]:
    """Score threshold with the best F1, and that F1."""
    return best_f1_threshold(_matches(answers))


def metric(
    run: Run,
    frames: int = 600,
    full_size: int = 1,
    preprocess: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> dict[str, float]:
    """Headline metrics of a network on held-out frames.

    Args:
        run: The network; called with a few frames at a time.
        frames: How many held-out frames.
        full_size: How many times as wide and high as the network's input the cameras' frames are. They then go through
            `preprocess`, as a server would bring them to the network's size; the truth is the small frame's.
        preprocess: From a frame (H, W, 3) to the network's input (1, 384, 640, 3); the builder gives it.

    Returns:
        mAP50, distance_error (mean relative, hits at the score threshold) and drivable_iou.
    """
    samples = render_split("heldout", 0, frames)
    if full_size > 1 and preprocess is not None:
        samples = _through(preprocess, samples, render_split("heldout", 0, frames, size=_times(full_size)))
    answers = collect(run, samples)
    matches = _matches(answers)
    return {
        "mAP50": float(np.nanmean([average_precision(found) for found in matches])),
        "distance_error": relative_distance_error(matches, score_threshold()),
        "drivable_iou": answers.area.value,
    }


def _times(factor: int) -> tuple[int, int]:
    return factor * INPUT_SIZE[0], factor * INPUT_SIZE[1]


def _through(
    preprocess: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], small: Iterator[Sample], large: Iterator[Sample]
) -> Iterator[Sample]:
    """The small frames with the large frames' images, brought to the network's size."""
    for sample, full in zip(small, large, strict=True):
        yield replace(sample, frame=replace(sample.frame, image=preprocess(full.frame.image)[0]))
