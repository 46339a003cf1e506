import json

import numpy as np
import pytest

from surround.__main__ import WEIGHTS
from surround.evaluate import POSTPROCESSING, metric
from surround.spec import LABELS, REFERENCE_FOCAL_PX
from surround.torch_run import TorchRun, load_weights


def test_the_committed_weights_load_with_strict_keys_and_are_finite() -> None:
    assert WEIGHTS.stat().st_size <= 8 * 1024 * 1024
    for name, value in load_weights(WEIGHTS).state_dict().items():
        assert np.isfinite(value.numpy()).all(), name


def test_they_see_on_held_out_frames() -> None:
    result = metric(TorchRun(WEIGHTS), frames=36)
    assert set(result) == {"mAP50", "distance_error", "drivable_iou"}
    assert result["mAP50"] > 0.55
    assert result["distance_error"] < 0.2
    assert result["drivable_iou"] > 0.85


def test_their_metrics_are_written_down() -> None:
    written = json.loads(WEIGHTS.with_name("metrics.json").read_text())
    assert written["frames"] == 600
    assert {"mAP50", "distance_error", "distance_error_box_height", "drivable_iou"} <= set(written["heldout"])
    assert written["command"].startswith("python -m surround train")
    assert written["training_minutes"] > 0


def test_postprocessing_agrees_with_the_code() -> None:
    read = json.loads(POSTPROCESSING.read_text())
    assert read["kind"] == "detections"
    assert tuple(read["labels"]) == LABELS
    assert read["reference_focal_px"] == REFERENCE_FOCAL_PX
    assert 0 < read["score_threshold"] < 1
    assert [read[name] for name in ("scores", "classes", "boxes", "distances", "drivable")] == [
        "scores", "classes", "boxes", "distances", "drivable",
    ]  # fmt: skip


def test_a_perfect_answer_scores_perfectly() -> None:
    from surround.dataset import render_split
    from surround.evaluate import collect, summarise

    samples = list(render_split("validation", 0, 12))
    at = iter(range(len(samples)))

    def oracle(frames: np.ndarray) -> dict[str, np.ndarray]:
        rows = [samples[next(at)] for _ in frames]
        most = 64
        outputs: dict[str, np.ndarray] = {
            "scores": np.zeros((len(rows), most)), "classes": np.zeros((len(rows), most), int),
            "boxes": np.zeros((len(rows), most, 4)), "distances": np.ones((len(rows), most)),
        }  # fmt: skip
        for n, sample in enumerate(rows):
            truth = sample.frame.truth
            count = len(truth.boxes)
            outputs["scores"][n, :count] = np.where(truth.ignored, 0.5, 0.9)
            outputs["classes"][n, :count] = truth.labels
            outputs["boxes"][n, :count] = truth.boxes
            outputs["distances"][n, :count] = truth.distances * REFERENCE_FOCAL_PX / sample.camera.fx
        outputs["drivable"] = np.stack([s.frame.truth.drivable[None].astype(float) for s in rows])
        return outputs

    result = summarise(collect(oracle, iter(samples)), 0.3)
    assert result["mAP50"] == pytest.approx(1.0)
    assert result["distance_error"] == pytest.approx(0.0, abs=1e-5)
    assert result["drivable_iou"] == 1.0
    assert 0.02 < result["distance_error_box_height"] < 0.5
