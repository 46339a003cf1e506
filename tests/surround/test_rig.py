import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surround.rig import CAMERA_IDS, CameraInfo, surround_rig

angles = st.floats(-3.1, 3.1)
small = st.floats(-0.4, 0.4)
lengths = st.floats(-3.0, 3.0)


@st.composite
def cameras(draw: st.DrawFn) -> CameraInfo:
    focal = draw(st.floats(100, 2000))
    return CameraInfo(
        "any", 640, 384, focal, focal * draw(st.floats(0.8, 1.2)), 320 + draw(st.floats(-40, 40)), 192,
        (draw(lengths), draw(lengths), draw(lengths)), draw(angles), draw(small), draw(small),
    )  # fmt: skip


@given(cameras(), st.lists(st.tuples(st.floats(-50, 700), st.floats(-50, 430), st.floats(0.5, 200)), min_size=1))
def test_projecting_an_unprojected_pixel_gives_the_pixel(
    camera: CameraInfo, places: list[tuple[float, float, float]]
) -> None:
    table = np.array(places)
    pixels, depth = camera.project(camera.unproject(table[:, :2], table[:, 2]))
    np.testing.assert_allclose(pixels, table[:, :2], atol=1e-6)
    np.testing.assert_allclose(depth, table[:, 2], rtol=1e-9)


@given(cameras())
def test_rotation_is_orthonormal_and_right_handed(camera: CameraInfo) -> None:
    rotation = camera.rotation()
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_axes_of_the_vehicle_frame() -> None:
    camera = CameraInfo("plain", 640, 384, 400, 400, 320, 192, (0, 0, 1.5), 0, 0, 0)
    points = np.array([(10.0, 0, 1.5), (10.0, 1, 1.5), (10.0, 0, 2.5)])  # ahead, ahead and left, ahead and above
    pixels, depth = camera.project(points)
    np.testing.assert_allclose(pixels, [(320, 192), (280, 192), (320, 152)])
    np.testing.assert_allclose(depth, 10)


@pytest.mark.parametrize(
    ("yaw", "pitch", "sees"),
    [(np.pi / 2, 0, (0.0, 5, 1.5)), (np.pi, 0, (-5.0, 0, 1.5)), (0, np.pi / 6, (5.0, 0, 1.5 - 5 * np.tan(np.pi / 6)))],
)
def test_yaw_looks_left_and_pitch_looks_down(yaw: float, pitch: float, sees: tuple[float, float, float]) -> None:
    camera = CameraInfo("turned", 640, 384, 400, 400, 320, 192, (0, 0, 1.5), yaw, pitch, 0)
    pixels, depth = camera.project(np.array([sees]))
    np.testing.assert_allclose(pixels[0], (320, 192), atol=1e-9)
    assert depth[0] > 0


def test_positive_roll_tilts_the_image_clockwise_for_what_it_sees_above() -> None:
    camera = CameraInfo("rolled", 640, 384, 400, 400, 320, 192, (0, 0, 0), 0, 0, 0.1)
    pixels, _ = camera.project(np.array([(10.0, 0, 1)]))
    assert pixels[0, 0] < 320  # the camera's right side went down, so the world turned the other way


def test_resizing_scales_the_projection() -> None:
    camera = surround_rig()[0]
    point = np.array([(20.0, 3, 1)])
    large, _ = camera.resized(1920, 1080).project(point)
    small_pixels, _ = camera.project(point)
    np.testing.assert_allclose(large, small_pixels * (1920 / 640, 1080 / 384))


def test_the_rig_has_six_cameras_that_together_see_the_front_and_the_sides() -> None:
    rig = surround_rig(1280, 720)
    assert tuple(camera.id for camera in rig) == CAMERA_IDS
    assert len(rig) == 6
    assert all(camera.width == 1280 and camera.height == 720 and camera.fx == camera.fy for camera in rig)
    narrow, wide = rig[1], rig[0]
    assert narrow.fx > 2 * wide.fx
    for degrees in range(-150, 151, 5):
        far = np.array([[100 * np.cos(np.radians(degrees)), 100 * np.sin(np.radians(degrees)), 1.3]])
        seen = [depth[0] > 0 and 0 <= pixel[0, 0] < 1280 for pixel, depth in (camera.project(far) for camera in rig)]
        assert any(seen), f"no camera sees {degrees} degrees"


def test_tolerances_are_drawn_from_the_generator() -> None:
    once = surround_rig(rng=np.random.default_rng(1))
    assert once == surround_rig(rng=np.random.default_rng(1))
    assert once != surround_rig(rng=np.random.default_rng(2))


def test_an_impossible_size_is_refused_with_the_values() -> None:
    with pytest.raises(ValueError, match="4000x10"):
        surround_rig(4000, 10)
