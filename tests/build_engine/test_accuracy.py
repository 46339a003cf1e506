from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build_engine.accuracy import check_finite, compare, evaluate, load_metric, with_preprocessing
from build_engine.errors import BuildError
from build_engine.graph import serialize
from build_engine.progress import Silent
from engine.manifest import DetectionPostprocessing, Preprocessing
from tests.build_engine.networks import HEIGHT, WIDTH

SPEC = DetectionPostprocessing(labels=("car",), scores="s", classes="c", boxes="b", score_threshold=0.5)


def detections(shift: float) -> dict[str, np.ndarray]:
    boxes = np.array([[[10, 10, 30, 30], [50, 10, 70, 30]]], np.float32)
    boxes[0, 1] += shift
    return {"s": np.array([[0.9, 0.8]], np.float32), "c": np.zeros((1, 2), np.int64), "b": boxes}


def test_equal_outputs_agree_fully() -> None:
    assert compare("g", "fp16", [detections(0)], [detections(0)], SPEC).detections_f1 == 1
    found = compare("g", "fp16", [detections(0)], [detections(0)], None)
    assert len(found.outputs) == 3 and all(
        output.agreement == 1 and output.max_difference == 0 for output in found.outputs
    )


def test_a_box_that_moved_away_costs_a_detection() -> None:
    found = compare("g", "int8", [detections(0)], [detections(40)], SPEC)
    assert found.detections_f1 == pytest.approx(0.5)
    assert not found.outputs, "lists are compared as detections"
    plain = compare("g", "int8", [detections(0)], [detections(40)], None)
    assert next(output for output in plain.outputs if output.name == "b").max_difference == 40


def test_lists_whose_length_depends_on_the_frame_are_compared_or_said_to_differ() -> None:
    wanted = [{"n": np.arange(count, dtype=np.float32)[None]} for count in (3, 5)]
    assert compare("g", "int8", wanted, wanted, None).outputs[0].agreement == 1
    assert compare("g", "int8", wanted, [wanted[0], wanted[0]], None).outputs[0].agreement == 0


def test_a_nan_that_precision_made_is_an_error() -> None:
    broken = detections(0)
    broken["b"][0, 0, 0] = np.nan
    with pytest.raises(BuildError, match="'b' of graph g holds a NaN"):
        compare("g", "fp16", [detections(0)], [broken], None)


def test_a_nan_on_calibration_data_is_an_error_wherever_it_comes_from() -> None:
    with pytest.raises(BuildError, match=r"'y' of graph float holds a NaN or an infinity in 25 %"):
        check_finite("float", {"n": np.zeros(3, np.int64), "y": np.array([1.0, 2.0, 3.0, np.inf])})


def test_a_toss_up_that_falls_the_other_way_costs_next_to_nothing() -> None:
    wanted = {"y": np.log(np.array([[0.50, 0.49, 0.01], [0.9, 0.05, 0.05]], np.float32))}
    given = {"y": np.log(np.array([[0.49, 0.50, 0.01], [0.9, 0.05, 0.05]], np.float32))}
    (output,) = compare("g", "int8", [wanted], [given], None).outputs
    assert output.top1 == 0.5 and output.expected_drop == pytest.approx(0.005, abs=1e-5)
    (maps,) = compare("g", "int8", [{"y": np.ones((1, 4, 5, 5))}], [{"y": np.ones((1, 4, 5, 5))}], None).outputs
    assert maps.top1 is None, "maps score no classes"


def test_a_metric_that_asks_for_the_deployed_preprocessing_gets_it() -> None:
    def metric(run: Any, preprocess: Any) -> dict[str, float]:
        return {"height": float(preprocess(np.zeros((1080, 1920, 3), np.uint8)).shape[1])}

    spec = Preprocessing(input="frames", color="rgb", width=96, height=64)
    assert with_preprocessing(metric, spec)(None) == {"height": 64.0}
    assert with_preprocessing(count_of_frames, spec) is count_of_frames


def count_of_frames(run: Any, frames: int = 1) -> dict[str, float]:
    return {"rows": float(run(np.zeros((frames, 3, HEIGHT, WIDTH), np.float32))["output"].shape[0])}


def raises(run: Any) -> dict[str, float]:
    raise ZeroDivisionError("no labels")


def leaves(run: Any) -> dict[str, float]:
    raise SystemExit("no data set")


def not_a_number(run: Any) -> dict[str, float]:
    return {"mAP50": float("nan")}


def test_a_metric_runs_the_network_with_its_arguments(classifier: onnx.ModelProto) -> None:
    function = load_metric(f"{__name__}:count_of_frames")
    assert evaluate(function, {"frames": 3}, "float", serialize(classifier), "image", Silent()) == {"rows": 3.0}


@pytest.mark.parametrize(
    ("function", "says"),
    [(raises, "ZeroDivisionError: no labels"), (leaves, "SystemExit: no data set"), (not_a_number, "mAP50")],
)
def test_a_metric_that_fails_is_an_error(function: Any, says: str, classifier: onnx.ModelProto) -> None:
    with pytest.raises(BuildError, match=says):
        evaluate(function, {}, "float", serialize(classifier), "image", Silent())


@pytest.mark.parametrize("name", ["tests.absent:metric", "tests:absent", "tests"])
def test_a_metric_that_does_not_exist(name: str) -> None:
    with pytest.raises(BuildError, match="no metric"):
        load_metric(name)


def test_a_metric_whose_module_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unlabelled.py").write_text("raise RuntimeError('no labels here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BuildError, match="no metric 'unlabelled:f': RuntimeError: no labels here"):
        load_metric("unlabelled:f")
