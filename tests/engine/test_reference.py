from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.bundle import ReferenceCase
from engine.detection_agreement import DetectionAgreement, intersection_over_union
from engine.errors import BundleInvalid
from engine.fake import FakeRuntime
from engine.manifest import DetectionPostprocessing, GraphEntry
from engine.opening import open_runtime
from engine.reference import check_reference, equal_share, l2_agreement
from engine.runtime import RuntimeDescription
from engine.slots import RegionTable
from engine.tensors import TensorSpec
from tests.engine.bundles import IMAGES, frames, reference_case, write_bundle
from tests.engine.graphs import camera_network

DETECTION = DetectionPostprocessing(
    labels=("car", "truck"),
    scores="scores",
    classes="classes",
    boxes="boxes",
    distances="distances",
    reference_focal_px=500.0,
)


def objects(*rows: tuple[float, ...]) -> dict[str, Any]:
    """Rows of (score, class, x, y, distance) as outputs of one frame, boxes 10 x 10."""
    table = np.array(rows, np.float32).reshape(1, -1, 5)
    corner = table[..., 2:4]
    return {
        "scores": table[..., 0],
        "classes": table[..., 1].astype(np.int64),
        "boxes": np.concatenate([corner, corner + 10], axis=-1),
        "distances": table[..., 4],
    }


def test_the_same_graph_agrees_with_itself(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    regions = RegionTable()
    runtime = open_runtime(bundle, "cpu", regions)
    outcome = check_reference(bundle, runtime, regions)
    assert outcome.passed
    assert outcome.agreement["features"] == pytest.approx(1.0, abs=1e-5)
    assert outcome.message.startswith("the fp32 engine agrees with the float graph on 1 reference case: features 1.0")


def test_a_case_larger_than_the_largest_batch_runs_in_parts(tmp_path: Path) -> None:
    graph = camera_network()
    bundle = write_bundle(tmp_path / "bundle", graph=graph, cases=(reference_case(graph, 5),), max_batch=2)
    regions = RegionTable()
    assert check_reference(bundle, open_runtime(bundle, "cpu", regions), regions).passed


def test_another_network_fails_and_the_message_has_the_figures(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "bundle",
        cases=(reference_case(camera_network(seed=7)),),
    )
    regions = RegionTable()
    outcome = check_reference(bundle, open_runtime(bundle, "cpu", regions), regions)
    assert not outcome.passed
    assert "disagrees" in outcome.message
    assert f"features {outcome.agreement['features']:.4f} (less than 0.999)" in outcome.message


def test_nothing_stays_behind_in_shared_memory(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    regions = RegionTable()
    check_reference(bundle, open_runtime(bundle, "cpu", regions), regions)
    assert len(regions) == 0


def test_a_bundle_without_cases_says_that_nothing_was_checked(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", cases=())
    regions = RegionTable()
    outcome = check_reference(bundle, open_runtime(bundle, "cpu", regions), regions)
    assert (outcome.passed, outcome.agreement) == (True, {})
    assert "nothing was checked" in outcome.message


def test_a_case_that_does_not_fit_the_manifest_is_named(tmp_path: Path) -> None:
    case = ReferenceCase("reference/odd.npz", {"images": frames()}, {"features": np.zeros((2, 3), np.float32)})
    bundle = write_bundle(tmp_path / "bundle", cases=(case,))
    regions = RegionTable()
    with pytest.raises(BundleInvalid, match=r"reference/odd.npz has features of shape \[2, 3\]"):
        check_reference(bundle, open_runtime(bundle, "cpu", regions), regions)


def test_detections_in_another_order_agree(tmp_path: Path) -> None:
    wanted = objects((0.9, 0, 1, 1, 10.0), (0.9, 1, 5, 5, 20.0), (0.1, 0, 9, 9, 5.0))
    swapped = {name: array[:, [1, 0, 2]] for name, array in wanted.items()}
    specs = tuple(
        TensorSpec(name=name, dtype=str(array.dtype), shape=("batch", *array.shape[1:]))
        for name, array in wanted.items()
    )
    bundle = write_bundle(
        tmp_path / "bundle",
        cases=(ReferenceCase("reference/0.npz", {"images": frames(1)}, wanted),),
        outputs=specs,
        postprocessing=DETECTION,
        graphs={"float": GraphEntry(path="graphs/float.onnx", precision="fp32", targets=("cpu",))},
    )
    description = RuntimeDescription("fake", "0", "cpu", "float", "fp32", (IMAGES,), specs, 1, "none")

    def answer(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        for name, array in swapped.items():
            outputs[name][:] = array

    regions = RegionTable()
    outcome = check_reference(bundle, FakeRuntime(description, regions, answer), regions)
    assert outcome.passed
    assert outcome.agreement == {"detections": 1.0, "distances": 1.0}


def test_f1_counts_what_only_one_engine_sees() -> None:
    agreement = DetectionAgreement(DETECTION, score_margin=0.02)
    agreement.add(objects((0.9, 0, 0, 0, 10.0), (0.8, 0, 50, 50, 10.0)), objects((0.9, 0, 1, 0, 10.0)))
    assert agreement.f1 == pytest.approx(2 / 3)


def test_another_class_is_another_object() -> None:
    agreement = DetectionAgreement(DETECTION, score_margin=0.02)
    agreement.add(objects((0.9, 0, 0, 0, 10.0)), objects((0.9, 1, 0, 0, 10.0)))
    assert agreement.f1 == 0.0


def test_a_score_at_the_threshold_may_fall_on_either_side() -> None:
    agreement = DetectionAgreement(DETECTION, score_margin=0.02)
    agreement.add(objects((0.9, 0, 0, 0, 10.0)), objects((0.9, 0, 0, 0, 10.0), (0.301, 0, 50, 50, 9.0)))
    agreement.add(objects((0.299, 0, 0, 0, 10.0)), objects((0.301, 0, 0, 0, 10.0)))
    assert agreement.f1 == 1.0


def test_a_distance_that_differs_is_told_in_parts_of_itself() -> None:
    agreement = DetectionAgreement(DETECTION, score_margin=0.02)
    agreement.add(objects((0.9, 0, 0, 0, 12.0)), objects((0.9, 0, 0, 0, 10.0)))
    assert agreement.distances == pytest.approx(0.8)


@pytest.mark.parametrize("field", ["scores", "boxes", "distances"])
def test_not_a_number_never_agrees(field: str) -> None:
    broken = objects((0.9, 0, 0, 0, 10.0))
    broken[field] = np.full_like(broken[field], np.nan)
    agreement = DetectionAgreement(DETECTION, score_margin=0.02)
    agreement.add(broken, objects((0.9, 0, 0, 0, 10.0)))
    assert agreement.f1 == 0.0


def test_engines_that_see_nothing_agree() -> None:
    agreement = DetectionAgreement(DETECTION, score_margin=0.02)
    agreement.add(objects((0.0, 0, 0, 0, 0.0)), objects((0.0, 0, 0, 0, 0.0)))
    assert agreement.f1 == 1.0
    assert agreement.distances is None


def test_overlap_of_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9]], np.float32)
    overlap = intersection_over_union(boxes, boxes)
    assert overlap[0, 1] == pytest.approx(1 / 3)
    assert overlap[0, 2] == 0
    assert overlap[3, 3] == 0  # an empty box


def test_relative_error() -> None:
    wanted = np.array([3.0, 4.0], np.float32)
    assert l2_agreement(wanted, wanted) == 1.0
    assert l2_agreement(wanted * 1.1, wanted) == pytest.approx(0.9)
    assert l2_agreement(-wanted, wanted) == 0.0
    assert l2_agreement(np.array([3.0, np.nan]), wanted) == 0.0
    assert l2_agreement(np.array([3.0, np.inf]), np.array([3.0, np.inf])) == 1.0
    assert l2_agreement(np.zeros(4), np.zeros(4)) == 1.0
    assert l2_agreement(np.full(4, 0.1), np.zeros(4)) == 0.0
    assert l2_agreement(np.zeros((0, 3)), np.zeros((0, 3))) == 1.0
    assert equal_share(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.75
