"""The sky of one camera: gradient, clouds, sun and a distant skyline."""

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.rig import CameraInfo
from surround.weather import Weather

Image = NDArray[np.uint8]


def _noise(size: int, octaves: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Tileable smooth noise (size, size), about -1 to 1."""
    field = np.zeros((size, size), np.float32)
    for cells in octaves:
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        wrapped = np.pad(grid, 2, mode="wrap")
        scale = size // cells
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        field += large[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size] / np.sqrt(cells)
    scaled: NDArray[np.float32] = field / (field.std() + 1e-6)
    return scaled


def paint_sky(camera: CameraInfo, weather: Weather, rows: int, seed: int) -> Image:
    """The sky as a camera sees it, (rows, camera.width, 3) RGB: the image's first rows.

    Args:
        camera: Which way it looks.
        weather: Colours, clouds and sun.
        rows: How many image rows to paint.
        seed: Shape of clouds and skyline; the same for all cameras of a scene.
    """
    rng = np.random.default_rng([seed, 77])
    width, height = max(camera.width // 2, 1), max(rows // 2, 1)
    u, v = np.meshgrid((np.arange(width) + 0.5) * 2, (np.arange(height) + 0.5) * rows / height)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)) @ camera.rotation()
    up = np.clip(rays[..., 2], 0, 1)
    blend = (np.clip(up / 0.55, 0, 1) ** 0.55)[..., None]
    sky = weather.horizon * (1 - blend) + weather.zenith * blend
    towards_sun = np.clip(rays @ weather.sun, 0, 1)[..., None]
    glow = weather.sun_light * 255
    sky = sky + glow * (0.22 * towards_sun**8 + 0.5 * towards_sun**60)
    clouds = _noise(256, (4, 8, 16, 32, 64), rng)
    plane = 130 / (up + 0.09)
    map_x, map_y = (rays[..., 0] * plane).astype(np.float32), (rays[..., 1] * plane).astype(np.float32)
    value = cv2.remap(clouds, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    cover = np.clip((value - 1.6 + 2.6 * weather.cloud) * 0.7, 0, 1) * np.clip(up * 9, 0, 1) * 0.85
    base = float(weather.horizon.mean()) * np.array([1.0, 1.0, 1.02])
    shade = np.clip(1.12 - 0.1 * value, 0.75, 1.2)[..., None]
    lit = base * shade + glow * 0.12
    sky = sky * (1 - cover[..., None]) + np.clip(lit, 0, 255) * cover[..., None]
    azimuth = np.arctan2(rays[..., 1], rays[..., 0])
    for layer, (reach, strength) in enumerate(((0.075, 0.25), (0.045, 0.45))):
        profile = _noise(256, (8, 16), rng)[layer]
        blocks = np.repeat(rng.uniform(0, 1, 128), 2) if rng.random() < 0.6 else np.zeros(256)
        index = (azimuth / (2 * np.pi) * 256).astype(int) % 256
        skyline = reach * (0.5 + 0.2 * profile[index] + 0.4 * blocks[index])
        veil = strength * float(np.exp(-weather.extinction * 160))
        colour = weather.horizon * (1 - veil) + np.array([70.0, 82, 78]) * weather.ambient * veil
        sky[up < skyline] = colour
    image = np.clip(sky, 0, 255).astype(np.uint8)
    full: Image = np.asarray(cv2.resize(image, (camera.width, rows), interpolation=cv2.INTER_LINEAR), np.uint8)
    return full
