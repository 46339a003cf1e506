import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import Age, Camera, Detection, Intrinsics, Ledger, Memory, Mounting, Result
from client.draw import annotate, birdseye, mosaic
from client.draw.birdseye import Canvas
from client.draw.ground import drivable_ground
from client.draw.palette import color_of
from client.draw.text import draw_text, text_width
from client.placing import Placed, merge, place
from client.projection import Pinhole

angles = st.floats(-3.1, 3.1)
places = st.builds(
    Mounting, st.floats(-3, 3), st.floats(-2, 2), st.floats(0.5, 3), angles, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)
)


FRONT = Mounting(1.9, 0.0, 1.4)


def camera(name: str = "front", mounting: Mounting | None = FRONT) -> Camera:
    return Camera(name, 640, 384, intrinsics=Intrinsics(400, 400, 320, 192), mounting=mounting)


def view(mounting: Mounting, name: str = "front") -> Pinhole:
    found = Pinhole.of(camera(name, mounting))
    assert found is not None
    return found


def detection(x: float, y: float, distance_m: float | None, score: float = 0.9, label: str = "car") -> Detection:
    return Detection(0 if label == "car" else 1, label, score, x - 20, y - 15, x + 20, y + 15, distance_m)


def result(*detections: Detection, camera_id: str = "front", **tensors: np.ndarray) -> Result:
    return Result(
        camera_id,
        0,
        0,
        "ok",
        "",
        True,
        "",
        detections,
        tensors,
        Ledger(),
        Age(0, 0, 0, False),
        Memory(0, 0, {}, 0),
        "",
        1,
    )


@given(mounting=places, column=st.floats(0, 640), row=st.floats(0, 384), depth_m=st.floats(0.5, 100))
def test_a_pixel_at_a_depth_projects_back_to_itself(
    mounting: Mounting, column: float, row: float, depth_m: float
) -> None:
    pinhole = view(mounting)
    point = pinhole.to_vehicle(np.array([(column, row)]), np.array([depth_m]))
    pixels, depths = pinhole.to_pixels(point)
    assert pixels[0] == pytest.approx((column, row), abs=1e-6)
    assert depths[0] == pytest.approx(depth_m)


@pytest.mark.parametrize(
    ("yaw_degrees", "expected"), [(0, (20, 0)), (90, (0, 20)), (180, (-20, 0)), (-90, (0, -20)), (45, (14.14, 14.14))]
)
def test_what_a_camera_sees_in_its_middle_lies_where_it_looks(
    yaw_degrees: float, expected: tuple[float, float]
) -> None:
    pinhole = view(Mounting(0, 0, 1.4, np.radians(yaw_degrees)))
    (placed,) = place([detection(320, 192, 20.0)], pinhole)
    assert (placed.x_m, placed.y_m) == pytest.approx(expected, abs=0.01)
    assert placed.distance_m == pytest.approx(20)


def test_right_in_the_picture_is_right_of_the_vehicle() -> None:
    (placed,) = place([detection(520, 192, 10.0)], view(Mounting(2, 0, 1.4)))
    assert (placed.x_m, placed.y_m) == pytest.approx((12, -5))


def test_a_camera_that_looks_down_and_one_that_rolls() -> None:
    down = view(Mounting(z_m=2, pitch_rad=np.radians(30)))
    point = down.to_vehicle(np.array([(320.0, 192.0)]), np.array([4.0]))
    assert point[0] == pytest.approx((4 * np.cos(np.radians(30)), 0, 0), abs=1e-9)
    rolled = view(Mounting(roll_rad=np.pi / 2))
    right = rolled.to_vehicle(np.array([(720.0, 192.0)]), np.array([1.0]))
    assert right[0] == pytest.approx((1, 0, -1), abs=1e-9)


def test_without_distance_or_optics_nothing_is_placed() -> None:
    assert place([detection(1, 1, None)], view(Mounting())) == []
    assert Pinhole.of(camera(mounting=None)) is None
    assert Pinhole.of(Camera("a", 8, 8, mounting=Mounting())) is None


def at(x_m: float, y_m: float, name: str, score: float = 0.9, label: str = "car") -> Placed:
    return Placed(detection(0, 0, x_m, score, label), (name,), x_m, y_m, float(np.hypot(x_m, y_m)), 0.0)


def test_one_object_seen_by_two_cameras_is_one() -> None:
    (merged,) = merge([at(40, 0, "wide", 0.6), at(43, 1, "narrow", 0.8)])
    assert (merged.x_m, merged.camera_ids) == (43, ("narrow", "wide"))


@pytest.mark.parametrize(
    "others",
    [
        (at(10, 0, "wide"), at(10.5, 0, "wide")),  # told apart by one camera
        (at(10, 0, "wide"), at(10.5, 0, "left", label="truck")),  # of another class
        (at(10, 0, "wide"), at(10, 1, "left")),  # in another direction
        (at(10, 0, "wide"), at(13, 0, "left")),  # too far behind, even for an estimated distance
    ],
)
def test_different_objects_stay_apart(others: tuple[Placed, Placed]) -> None:
    assert len(merge(others)) == 2


@given(st.lists(st.builds(at, st.floats(2, 60), st.floats(-20, 20), st.sampled_from("abc"), st.floats(0, 1))))
def test_merging_loses_no_camera_and_never_adds(objects: list[Placed]) -> None:
    merged = merge(objects)
    assert len(merged) <= len(objects)
    assert sum(len(item.camera_ids) for item in merged) == len(objects)


def test_an_object_is_drawn_at_its_place_in_its_colour() -> None:
    picture = birdseye({"front": result(detection(320, 192, 20.0))}, [camera()], 360, 576)
    column, row = Canvas.of(360, 576).to_picture(21.9, 0)
    assert picture[round(row), round(column) - 4].tolist() == list(color_of("car", 0))
    empty = birdseye({}, [camera()], 360, 576)
    assert (picture != empty).any()


def test_unsure_detections_and_results_without_numbers_are_not_drawn() -> None:
    empty = birdseye({"front": result()}, [camera()], 360, 576)
    unsure = birdseye({"front": result(detection(320, 192, 20.0, score=0.1))}, [camera()], 360, 576)
    assert (empty == unsure).all()


def test_the_ground_is_coloured_only_where_a_camera_sees_road() -> None:
    pinhole = view(Mounting(0, 0, 1.4))
    mask = np.zeros((384, 640), np.float32)
    mask[:, 320:] = 1.0  # road on the right half of the picture
    ground = np.array([[(10.0, -2.0), (10.0, 2.0), (-10.0, -2.0), (200.0, -2.0)]])
    assert drivable_ground([(pinhole, mask)], ground) == pytest.approx(np.array([[1.0, 0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("size", [(64, 48), (640, 384), (1920, 1080)])
def test_annotating_leaves_the_image_as_it_was(size: tuple[int, int]) -> None:
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    road = np.zeros((1, 12, 20), np.float32)
    road[:, 6:] = 1
    found = result(detection(width / 2, height / 2, 12.0), detection(5, 5, None), drivable=road)
    picture = annotate(image, found, "front")
    assert (image == 90).all()
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    green = picture[height - 2, width // 2].astype(int)
    assert green[1] > green[0]
    assert (picture[height // 2 - height // 40, 2] == 90).all() or width < 100


def test_a_failed_frame_says_so_in_its_picture() -> None:
    image = np.full((384, 640, 3), 90, np.uint8)
    failed = Result(
        "front", 0, 0, "failed", "why", False, "", (), {}, Ledger(), Age(0, 0, 0, False), Memory(0, 0, {}, 0), "", 1
    )
    assert (annotate(image, failed) != annotate(image, result())).any()


def test_a_mosaic_has_a_tile_per_camera_and_the_view_from_above() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    cameras = [camera(name) for name in names]
    images = {name: np.full((384, 640, 3), 40 + 20 * index, np.uint8) for index, name in enumerate(names[:5])}
    results = {name: result(camera_id=name) for name in names[:5]}
    picture = mosaic(images, results, cameras, tile_width=320, labels=("car", "truck"))
    for index in range(5):
        shade = 40 + 20 * index
        assert (picture == shade).all(-1).sum() > 300 * 150
    assert picture.shape[1] > 2 * 320 + 200
    single = mosaic({"a": images["a"]}, {"a": results["a"]}, cameras[:1], tile_width=320)
    assert single.shape[1] < 360


def test_text_is_drawn_without_a_font_too(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = text_width("int8 · cpu", 20)
    monkeypatch.setattr("client.draw.text._FACE", None)  # OpenCV 4
    assert text_width("int8 · cpu", 20) == pytest.approx(wide, rel=0.4)
    picture = np.zeros((40, 200, 3), np.uint8)
    draw_text(picture, "int8 · cpu", 5, 30, (255, 255, 255), 20)
    assert 100 < (picture > 128).all(-1).sum() < 2000
