from pathlib import Path

import numpy as np
import pytest

from surround.batches import draw_batch, normalise, targets
from surround.dataset import Cache
from surround.spec import INPUT_SIZE, MEAN, REFERENCE_FOCAL_PX, STD


def row(box: tuple[float, float, float, float], label: int, distance: float, ignored: bool = False) -> list[float]:
    return [*box, label, distance, 1.0, float(ignored)]


def test_an_object_makes_one_peak_of_its_class_with_box_and_virtual_distance() -> None:
    objects = np.array([row((80, 40, 128, 104), 2, 20.0)], np.float32)
    heat, weight, boxes, distance, share = targets(objects, 2 * REFERENCE_FOCAL_PX, (320, 192))
    centre = (72 // 8, 104 // 8)
    assert np.argwhere(heat == 1.0).tolist() == [[2, *centre]]
    assert (weight == 1).all()
    assert boxes[:, centre[0], centre[1]].tolist() == [80, 40, 128, 104]
    assert distance[0, centre[0], centre[1]] == 10.0  # twice the focal length shows it twice as large
    assert share.sum() == pytest.approx(1.0)
    assert (heat >= 0).all()


def test_an_ignored_object_silences_the_heatmap_there() -> None:
    heat, weight, _, _, share = targets(np.array([row((80, 40, 128, 104), 2, 20.0, True)], np.float32), 400, (320, 192))
    assert heat.max() == 0
    assert share.sum() == 0
    assert (weight[:, 5:13, 10:16] == 0).all()
    assert weight.sum() == weight.size - 4 * 8 * 6


def test_the_nearer_object_owns_a_contested_cell() -> None:
    objects = np.array([row((80, 40, 128, 104), 0, 5.0), row((84, 44, 124, 100), 1, 30.0)], np.float32)
    _, _, boxes, distance, _ = targets(objects, REFERENCE_FOCAL_PX, (320, 192))
    assert boxes[0, 9, 13] == 80
    assert distance[0, 9, 13] == 5.0


def test_normalising_undoes_mean_and_deviation() -> None:
    image = np.array([[[MEAN, np.add(MEAN, STD)]]]).round().astype(np.uint8)[0]
    values = normalise(image[None])
    assert values.shape == (1, 3, 1, 2)
    np.testing.assert_allclose(values[0, :, 0], [[0, 1]] * 3, atol=0.02)


@pytest.fixture(scope="module")
def patch_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One black frame with a white object that is also the only drivable area."""
    cache = Cache(tmp_path_factory.mktemp("cache"), 1)
    x0, y0, x1, y1 = 280, 160, 380, 232
    cache.images[0, y0:y1, x0:x1] = 255
    cache.drivable[0, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] = 1
    cache.objects[0] = -1
    cache.objects[0, 0] = row((x0, y0, x1, y1), 0, 12.0)
    cache.focal[0] = 500
    return cache


@pytest.mark.parametrize("size", [(320, 192), INPUT_SIZE])
def test_augmentation_moves_pixels_boxes_area_and_distance_together(patch_cache: Cache, size: tuple[int, int]) -> None:
    checked = 0
    for seed in range(12):
        batch = draw_batch(patch_cache, 1, size, np.random.default_rng(seed))
        peaks = np.argwhere(batch.heat[0, 0] == 1.0)
        grey = batch.frames[0].mean(0)
        outside = np.sort(grey.ravel())[grey.size // 4]
        if not len(peaks) or grey.max() - outside < 0.5:
            continue
        row_, column = peaks[0]
        x0, y0, x1, y1 = batch.boxes[0, :, row_, column]
        bright = grey > (grey.max() + outside) / 2
        bright[: int(max(y0 - 6, 0))] = bright[int(y1 + 6) :] = False  # the border around a zoomed-out frame is grey
        bright[:, : int(max(x0 - 6, 0))] = bright[:, int(x1 + 6) :] = False
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        np.testing.assert_allclose(drawn, (x0, y0, x1, y1), atol=2.0)
        area = batch.drivable[0, 0].sum() * 64
        assert area == pytest.approx((x1 - x0) * (y1 - y0), rel=0.06)
        zoom = (x1 - x0) / 100
        if x0 > 0 and x1 < size[0]:
            expected = 12.0 * REFERENCE_FOCAL_PX / (500 * zoom)
            assert batch.distance[0, 0, row_, column] == pytest.approx(expected, rel=0.02)
        checked += 1
    assert checked >= 4


def test_a_batch_is_a_function_of_its_generator(patch_cache: Cache) -> None:
    a, b = (draw_batch(patch_cache, 2, (320, 192), np.random.default_rng(3)) for _ in range(2))
    assert a.frames.tobytes() == b.frames.tobytes()
    assert a.heat.tobytes() == b.heat.tobytes()


def test_a_cache_keeps_what_was_put(tmp_path: Path) -> None:
    from surround.dataset import render_split

    cache = Cache(tmp_path, 2)
    samples = list(render_split("train", 0, 2))
    for n, sample in enumerate(samples):
        cache.put(n, sample)
    again = Cache(tmp_path, 2)
    assert np.array_equal(again.images[1], samples[1].frame.image)
    kept = again.objects[1][again.objects[1][:, 4] >= 0]
    assert len(kept) == len(samples[1].frame.truth.boxes)
    assert (np.diff(kept[:, 5]) >= 0).all()


def test_a_frame_of_a_split_does_not_depend_on_where_rendering_starts() -> None:
    from surround.dataset import render_split

    late = next(iter(render_split("validation", 4, 5)))
    early = list(render_split("validation", 0, 5))[4]
    assert np.array_equal(late.frame.image, early.frame.image)
