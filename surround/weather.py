"""Weather and light: where the sun stands, what the air does, what the sensor sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Range = tuple[float, float]


@dataclass(frozen=True)
class Weather:
    """One moment's light and air. Colours are RGB multipliers or 0..255.

    Attributes:
        sun: Unit vector towards the sun, vehicle frame (3,).
        sun_light: Direct light, RGB multiplier (3,).
        ambient: Sky light, RGB multiplier (3,).
        zenith: Sky colour overhead, 0..255 (3,).
        horizon: Sky colour at the horizon and of the air, 0..255 (3,).
        cloud: Cloud cover, 0 to 1.
        extinction: Share of contrast lost per metre of air, 1/m.
        wet: Wetness of the road, 0 to 1.
        rain: Density of visible rain streaks, 0 to 1.
        noise: Sensor noise, standard deviation in 0..255 levels.
        vignette: Light lost in the corners, 0 to 1.
        exposure: RGB gain of the sensor, white balance included (3,).
        lamps: True when vehicles and windows are lit.
    """

    sun: Array
    sun_light: Array
    ambient: Array
    zenith: Array
    horizon: Array
    cloud: float
    extinction: float
    wet: float
    rain: float
    noise: float
    vignette: float
    exposure: Array
    lamps: bool

    @property
    def casts_shadows(self) -> bool:
        """True when the sun is strong enough for shadows with an outline."""
        return float(self.sun_light.mean()) > 0.2


@dataclass(frozen=True)
class _Kind:
    elevation: Range  # degrees
    sun: Range
    sun_tint: tuple[float, float, float]
    ambient: Range
    zenith: tuple[int, int, int]
    horizon: tuple[int, int, int]
    cloud: Range
    visibility: Range  # metres to lose two thirds of the contrast
    wet: Range
    rain: Range
    noise: Range
    lamps: float


_KINDS: dict[str, _Kind] = {
    "clear": _Kind((28, 65), (0.5, 0.8), (1.0, 0.97, 0.9), (0.42, 0.58), (84, 130, 196), (184, 204, 224),
                   (0.0, 0.6), (400, 2000), (0, 0), (0, 0), (1.0, 3.0), 0.0),
    "overcast": _Kind((30, 60), (0.0, 0.12), (1, 1, 1), (0.68, 0.95), (164, 172, 182), (206, 210, 214),
                      (0.7, 1.0), (250, 900), (0, 0.3), (0, 0), (1.0, 4.0), 0.05),
    "dusk": _Kind((4, 14), (0.12, 0.3), (1.1, 0.72, 0.45), (0.26, 0.42), (52, 68, 112), (226, 168, 130),
                  (0.1, 0.7), (300, 900), (0, 0.1), (0, 0), (3.0, 7.0), 1.0),
    "fog": _Kind((25, 50), (0, 0), (1, 1, 1), (0.7, 0.92), (190, 194, 198), (200, 204, 206),
                 (1.0, 1.0), (45, 140), (0, 0.4), (0, 0), (1.5, 4.0), 0.6),
    "rain": _Kind((30, 55), (0, 0.03), (1, 1, 1), (0.5, 0.75), (120, 128, 136), (164, 170, 174),
                  (0.9, 1.0), (110, 320), (0.6, 1.0), (0.4, 1.0), (2.0, 5.0), 0.5),
    # Held out: no training weather looks like these.
    "sea_haze": _Kind((35, 60), (0.2, 0.38), (1.0, 0.99, 0.95), (0.6, 0.75), (150, 176, 190), (222, 226, 216),
                      (0.2, 0.5), (110, 260), (0, 0.2), (0, 0), (1.0, 3.5), 0.0),
    "low_sun": _Kind((15, 25), (0.55, 0.8), (1.1, 0.88, 0.62), (0.36, 0.5), (96, 132, 176), (240, 214, 170),
                     (0.0, 0.4), (300, 1200), (0, 0.2), (0, 0), (1.0, 4.0), 0.1),
    "drizzle": _Kind((25, 50), (0, 0.05), (1, 1, 1), (0.42, 0.62), (104, 116, 130), (140, 150, 162),
                     (0.8, 1.0), (90, 220), (0.5, 0.9), (0.1, 0.4), (2.0, 6.0), 0.7),
    "nightfall": _Kind((1, 4), (0.02, 0.08), (1.0, 0.6, 0.6), (0.2, 0.3), (34, 44, 82), (128, 112, 128),
                       (0.1, 0.6), (250, 700), (0, 0.3), (0, 0), (4.0, 8.0), 1.0),
}  # fmt: skip

WEATHERS: tuple[str, ...] = tuple(_KINDS)
"""Names of the weathers."""


def weather_named(name: str, rng: np.random.Generator) -> Weather:
    """Draw one moment of a weather kind; a ValueError names the known kinds."""
    if name not in _KINDS:
        raise ValueError(f"unknown weather {name!r}; known weathers: {', '.join(_KINDS)}")
    kind = _KINDS[name]
    elevation = np.radians(rng.uniform(*kind.elevation))
    azimuth = rng.uniform(-np.pi, np.pi)
    tint = np.asarray(kind.sun_tint) * rng.uniform(0.95, 1.05, 3)
    sky_gain = rng.uniform(0.88, 1.08)
    horizon = np.asarray(kind.horizon) * sky_gain * rng.uniform(0.96, 1.04, 3)
    zenith = np.asarray(kind.zenith) * sky_gain * rng.uniform(0.93, 1.07, 3)
    air = 0.75 + 0.25 * horizon / horizon.mean()
    return Weather(
        sun=np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        ),
        sun_light=rng.uniform(*kind.sun) * tint,
        ambient=rng.uniform(*kind.ambient) * air,
        zenith=np.clip(zenith, 0, 255),
        horizon=np.clip(horizon, 0, 255),
        cloud=float(rng.uniform(*kind.cloud)),
        extinction=float(1 / rng.uniform(*kind.visibility)),
        wet=float(rng.uniform(*kind.wet)),
        rain=float(rng.uniform(*kind.rain)),
        noise=float(rng.uniform(*kind.noise)),
        vignette=float(rng.uniform(0.05, 0.35)),
        exposure=rng.uniform(0.95, 1.3) * rng.uniform(0.95, 1.05, 3),
        lamps=bool(rng.random() < kind.lamps),
    )
