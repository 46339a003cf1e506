import numpy as np
import pytest

from surround.metrics import (
    AreaIou,
    Detections,
    Objects,
    average_precision,
    best_f1_threshold,
    iou,
    match,
    relative_distance_error,
)

UNIT = (0.0, 0.0, 10.0, 10.0)
FAR = (100.0, 0.0, 110.0, 10.0)
ELSEWHERE = (300.0, 300.0, 310.0, 310.0)


def found(*rows: tuple[tuple[float, float, float, float], float], label: int = 0, distance: float = 11.0) -> Detections:
    boxes = np.array([box for box, _ in rows], float).reshape(-1, 4)
    scores = np.array([score for _, score in rows])
    return Detections(boxes, np.full(len(rows), label), scores, np.full(len(rows), distance))


def true(*boxes: tuple[float, float, float, float], ignored: tuple[bool, ...] = (), distance: float = 10.0) -> Objects:
    flags = np.array(ignored or (False,) * len(boxes), bool)
    return Objects(
        np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), int), np.full(len(boxes), distance), flags
    )


def test_iou_by_hand() -> None:
    a = np.array([UNIT])
    b = np.array([UNIT, (5.0, 0, 15, 10), (0.0, 0, 10, 5), FAR])
    np.testing.assert_allclose(iou(a, b), [[1, 1 / 3, 0.5, 0]])


def test_all_found_is_one_and_nothing_found_is_zero() -> None:
    assert average_precision(match([found((UNIT, 0.9), (FAR, 0.8))], [true(UNIT, FAR)], 0)) == 1.0
    assert average_precision(match([found()], [true(UNIT)], 0)) == 0.0


def test_no_object_that_counts_gives_nan() -> None:
    assert np.isnan(average_precision(match([found((UNIT, 0.9))], [true()], 0)))


def test_a_false_alarm_above_a_hit_halves_the_precision_there() -> None:
    # Ranking: miss, hit, hit of two objects: precision 1/2 at recall 1/2, 2/3 at recall 1, interpolated to 2/3.
    result = match([found((ELSEWHERE, 0.9), (UNIT, 0.8), (FAR, 0.7))], [true(UNIT, FAR)], 0)
    assert result.hits.tolist() == [0, 1, 1]
    assert average_precision(result) == pytest.approx(2 / 3)


def test_a_second_detection_of_one_object_is_false() -> None:
    result = match([found((UNIT, 0.9), (UNIT, 0.8))], [true(UNIT)], 0)
    assert result.hits.tolist() == [1, 0]


def test_an_ignored_object_makes_neither_hit_nor_false_alarm() -> None:
    result = match([found((UNIT, 0.9), (FAR, 0.8))], [true(UNIT, FAR, ignored=(True, False))], 0)
    assert result.hits.tolist() == [-1, 1]
    assert result.count == 1
    assert average_precision(result) == 1.0


def test_a_counting_object_is_preferred_to_an_ignored_one() -> None:
    result = match([found((UNIT, 0.9))], [true(UNIT, UNIT, ignored=(True, False))], 0)
    assert result.hits.tolist() == [1]


def test_other_labels_do_not_match() -> None:
    result = match([found((UNIT, 0.9), label=1)], [true(UNIT)], 1)
    assert result.hits.tolist() == [0]
    assert result.count == 0


def test_frames_are_ranked_together() -> None:
    result = match([found((ELSEWHERE, 0.5)), found((UNIT, 0.9))], [true(UNIT), true(UNIT)], 0)
    assert result.scores.tolist() == [0.9, 0.5]
    assert result.frames.tolist() == [1, 0]
    assert average_precision(result) == pytest.approx(0.5)


def test_a_band_counts_only_its_own_objects() -> None:
    truth = [true(UNIT, distance=10.0)]
    assert match([found((UNIT, 0.9))], truth, 0, band=(0, 15)).hits.tolist() == [1]
    outside = match([found((UNIT, 0.9))], truth, 0, band=(15, 30))
    assert outside.hits.tolist() == [-1]
    assert outside.count == 0


def test_distance_error_is_relative_and_only_over_confident_hits() -> None:
    result = match([found((UNIT, 0.9), (ELSEWHERE, 0.8))], [true(UNIT)], 0)  # 11 m stated, 10 m true
    assert relative_distance_error([result], 0.5) == pytest.approx(0.1)
    assert np.isnan(relative_distance_error([result], 0.95))


def test_the_threshold_keeps_hits_and_drops_false_alarms() -> None:
    result = match([found((UNIT, 0.9), (FAR, 0.6), (ELSEWHERE, 0.5))], [true(UNIT, FAR)], 0)
    assert best_f1_threshold([result]) == (0.6, 1.0)


def test_area_iou_is_summed_over_frames() -> None:
    area = AreaIou()
    assert np.isnan(area.value)
    area.add(np.array([True, True]), np.array([True, False]))
    area.add(np.array([True, True]), np.array([True, True]))
    assert area.value == pytest.approx(3 / 4)
