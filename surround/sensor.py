"""The camera's sensor: exposure, vignette, rain in the air, noise."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.rig import CameraInfo
from surround.weather import Weather

Image = NDArray[np.uint8]

_SPARE = 64
_BANK_SIGMA = 24.0


@lru_cache(maxsize=4)
def _noise_bank(height: int, width: int) -> tuple[Image, Image]:
    """Positive and negative half of Gaussian noise with a deviation of _BANK_SIGMA, (H, W, 3) each."""
    noise = np.random.default_rng(5).standard_normal((height + _SPARE, width + _SPARE, 3), np.float32) * _BANK_SIGMA
    return noise.clip(0, 255).astype(np.uint8), (-noise).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _rain_bank(height: int, width: int) -> Image:
    """Streaks of falling drops, (H, W, 3) grey levels to add."""
    rng = np.random.default_rng(6)
    image = np.zeros((height + _SPARE, width + _SPARE, 3), np.uint8)
    for _ in range(260):
        x, y = rng.integers(0, width + _SPARE), rng.integers(0, height + _SPARE)
        length = int(rng.uniform(0.02, 0.09) * height)
        level = int(rng.uniform(20, 70))
        end = (int(x + length * 0.15), int(y + length))
        cv2.line(image, (int(x), int(y)), end, (level, level, level), 1, cv2.LINE_AA)
    return cv2.blur(image, (2, 3))  # type: ignore[return-value]


class Sensor:
    """Turns drawn light into the image a camera would deliver.

    Args:
        camera: Image size.
        weather: Exposure, vignette, noise and rain.
    """

    def __init__(self, camera: CameraInfo, weather: Weather) -> None:
        self._weather = weather
        height, width = camera.height, camera.width
        y, x = np.mgrid[0:height, 0:width]
        radius = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
        fall = (1 - weather.vignette * radius)[..., None] * weather.exposure * 128
        self._gain = fall.clip(0, 255).astype(np.uint8)
        self._noise = _noise_bank(height, width)

    def expose(self, image: Image, seed: list[int]) -> Image:
        """The delivered image (H, W, 3); `seed` picks this frame's noise."""
        weather = self._weather
        rng = np.random.default_rng(seed)
        height, width = image.shape[:2]

        def crop(bank: Image) -> Image:
            row, column = rng.integers(0, _SPARE, 2)
            return bank[row : row + height, column : column + width]

        if weather.rain > 0.05:
            image = cv2.addWeighted(image, 1, crop(_rain_bank(height, width)), weather.rain, 0)  # type: ignore[assignment]
        image = cv2.multiply(image, self._gain, scale=1 / 128)  # type: ignore[assignment]
        share = weather.noise / _BANK_SIGMA
        image = cv2.addWeighted(image, 1, crop(self._noise[0]), share, 0, dst=image)  # type: ignore[assignment]
        return cv2.addWeighted(image, 1, crop(self._noise[1]), -share, 0, dst=image)  # type: ignore[return-value]
