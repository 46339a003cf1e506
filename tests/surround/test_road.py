import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surround.road import RoadFrame

roads = st.builds(RoadFrame, st.floats(-1 / 100, 1 / 100), st.floats(-6, 6), st.floats(-0.2, 0.2))


@given(roads, st.floats(-90, 120), st.floats(-20, 20))
def test_road_coordinates_survive_a_round_trip(road: RoadFrame, s: float, d: float) -> None:
    point = road.to_vehicle(np.array([s]), np.array([d]))
    back_s, back_d = road.from_vehicle(point[:, 0], point[:, 1])
    np.testing.assert_allclose([back_s[0], back_d[0]], [s, d], atol=1e-5)


@given(roads)
def test_the_vehicle_is_at_the_origin(road: RoadFrame) -> None:
    point = road.to_vehicle(np.array([0.0]), np.array([road.offset]))
    np.testing.assert_allclose(point, 0, atol=1e-6)


def test_a_left_curve_bends_towards_positive_y() -> None:
    point = RoadFrame(1 / 100, 0, 0).to_vehicle(np.array([30.0]), np.array([0.0]))[0]
    assert point[1] > 4
    assert np.hypot(point[0], point[1] - 100) == pytest.approx(100)


@given(roads, st.floats(-60, 60))
def test_direction_is_the_slope_of_the_centre_line(road: RoadFrame, s: float) -> None:
    a, b = road.to_vehicle(np.array([s - 0.01, s + 0.01]), np.array([0.0, 0.0]))
    slope = np.arctan2(b[1] - a[1], b[0] - a[0])
    assert abs(np.angle(np.exp(1j * (slope - road.direction(s))))) < 1e-4
