"""Road coordinates: distance along the road and to its left, seen from a vehicle on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RoadFrame:
    """The road around the vehicle, a circular arc.

    Road coordinates are s (metres along the centre line, 0 beside the vehicle's origin) and d (metres left
    of the centre line).

    Attributes:
        curvature: 1/radius in 1/m; positive curves left.
        offset: The vehicle's d in metres.
        heading: The vehicle's heading relative to the road in radians; positive points left.
    """

    curvature: float
    offset: float
    heading: float

    @property
    def _curvature(self) -> float:
        return self.curvature if abs(self.curvature) > 1e-6 else 1e-6

    def to_vehicle(self, s: Array, d: Array) -> Array:
        """Vehicle-frame ground points (N, 2) in metres of road coordinates (N,), (N,)."""
        k = self._curvature
        angle = k * s
        x = np.sin(angle) * (1 / k - d)
        y = 1 / k - np.cos(angle) * (1 / k - d) - self.offset
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.stack([cos * x + sin * y, cos * y - sin * x], -1)

    def from_vehicle(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Road coordinates (s, d) of vehicle-frame ground points, any shape, metres."""
        k = self._curvature
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        along = k * (cos * x - sin * y)
        across = 1 - k * (sin * x + cos * y + self.offset)
        s: Array = np.arctan2(along, across) / k
        d: Array = (1 - np.hypot(along, across)) / k
        return s, d

    def direction(self, s: float) -> float:
        """Heading of the road at s relative to the vehicle, in radians."""
        return self._curvature * s - self.heading
