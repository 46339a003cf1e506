from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from engine.manifest import DetectionPostprocessing, Preprocessing
from engine.postprocess import Detections, detections
from engine.preprocess import Placement, place

SPEC = DetectionPostprocessing(
    labels=("car", "truck", "person"),
    scores="scores",
    classes="classes",
    boxes="boxes",
    distances="distances",
    reference_focal_px=500.0,
)
PLAIN = Placement(scale_x=1.0, scale_y=1.0, offset_x=0, offset_y=0, width=640, height=384)


def outputs(scores: Any, classes: Any = None, boxes: Any = None, distances: Any = None) -> dict[str, Any]:
    count = len(scores)
    return {
        "scores": np.array([scores], np.float32),
        "classes": np.array([classes if classes is not None else [0] * count], np.int64),
        "boxes": np.array([boxes if boxes is not None else [[10, 10, 20, 20]] * count], np.float32),
        "distances": np.array([distances if distances is not None else [10.0] * count], np.float32),
    }


def decode(
    tensors: dict[str, Any],
    placement: Placement = PLAIN,
    width: int = 640,
    height: int = 384,
    focal: float | None = 500.0,
    spec: DetectionPostprocessing = SPEC,
) -> Detections:
    return detections(tensors, 0, spec, placement, width, height, focal)


def test_best_first_and_only_above_the_threshold() -> None:
    found = decode(outputs([0.4, 0.9, 0.2, 0.3], classes=[0, 1, 2, 2]))
    np.testing.assert_allclose(found.scores, [0.9, 0.4, 0.3])
    assert found.classes.tolist() == [1, 0, 2]
    assert found.finite


def test_equal_scores_keep_their_order() -> None:
    assert decode(outputs([0.5] * 3, classes=[2, 0, 1])).classes.tolist() == [2, 0, 1]


def test_boxes_are_in_frame_pixels_and_inside_the_frame() -> None:
    placement = place(1280, 720, Preprocessing(input="images", color="rgb", width=640, height=384))
    assert (placement.offset_x, placement.offset_y) == (0, 12)
    found = decode(outputs([0.9, 0.8], boxes=[[100, 62, 200, 112], [-50, 0, 700, 400]]), placement, 1280, 720)
    np.testing.assert_allclose(found.boxes, [[200, 100, 400, 200], [0, 0, 1280, 720]])


def test_metres_scale_with_the_focal_length() -> None:
    """A lens of twice the focal length sees an object of the same size at twice the distance."""
    half = Placement(scale_x=0.5, scale_y=0.5, offset_x=0, offset_y=0, width=640, height=384)
    assert decode(outputs([0.9], distances=[10.0]), half, focal=1000.0).distances.tolist() == [10.0]
    assert decode(outputs([0.9], distances=[10.0]), half, focal=2000.0).distances.tolist() == [20.0]


def test_without_a_focal_length_there_are_no_metres() -> None:
    assert decode(outputs([0.9]), focal=None).distances is None
    plain = SPEC.model_copy(update={"distances": None, "reference_focal_px": None})
    assert decode(outputs([0.9]), spec=plain).distances is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["scores", "boxes", "distances"])
def test_a_number_that_is_none_makes_the_answer_invalid(field: str, value: float) -> None:
    tensors = outputs([0.9, 0.8])
    tensors[field][0, 0] = value
    found = decode(tensors)
    if field == "scores" and value < 0:
        assert found.finite and len(found.scores) == 1  # below the threshold, so not answered
    else:
        assert not found.finite


def test_a_distance_that_is_not_answered_still_counts() -> None:
    assert not decode(outputs([0.9], distances=[np.nan]), focal=None).finite


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_class_without_a_label_makes_the_answer_invalid(label: int) -> None:
    found = decode(outputs([0.9], classes=[label]))
    assert not found.finite
    assert 0 <= found.classes[0] < len(SPEC.labels)


def test_what_is_not_answered_may_be_anything() -> None:
    tensors = outputs([0.9, 0.1])
    tensors["boxes"][0, 1] = np.nan
    tensors["classes"][0, 1] = 99
    assert decode(tensors).finite


def test_nothing_seen() -> None:
    found = decode(outputs([0.1, 0.2]))
    assert (len(found.scores), found.boxes.shape, found.distances.shape) == (0, (0, 4), (0,))
    assert found.finite


def test_half_precision_outputs() -> None:
    tensors = {
        name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in outputs([0.9]).items()
    }
    found = decode(tensors)
    assert found.scores.dtype == found.boxes.dtype == found.distances.dtype == np.float32


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(
    stn.arrays(np.float32, (1, 6), elements=FLOATS),
    stn.arrays(np.float32, (1, 6, 4), elements=FLOATS),
    stn.arrays(np.float32, (1, 6), elements=FLOATS),
    stn.arrays(np.int64, (1, 6), elements=st.integers(-5, 5)),
)
def test_whatever_the_engine_says_the_answer_is_ordered_bounded_and_honest(
    scores: Any, boxes: Any, distances: Any, classes: Any
) -> None:
    tensors = {"scores": scores, "boxes": boxes, "distances": distances, "classes": classes}
    with np.errstate(all="ignore"):
        found = decode(tensors)
    numbers = [found.scores, found.boxes, found.distances]
    if found.finite:
        assert all(np.isfinite(array).all() for array in numbers)
        assert (np.diff(found.scores) <= 0).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [640, 384, 640, 384]).all()
    assert not (found.scores < SPEC.score_threshold).any()
    assert ((found.classes >= 0) & (found.classes < 3)).all()
