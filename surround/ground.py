"""The ground of one street as a texture in road coordinates, with its drivable area."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.towns import Town
from surround.weather import Weather

Image = NDArray[np.uint8]

LENGTH_M = 256.0
"""The street repeats after this many metres."""

HALF_WIDTH_M = 24.0
"""The texture covers d from -HALF_WIDTH_M to HALF_WIDTH_M; beyond, its edge continues."""

PIXELS_PER_M = 16
"""Resolution of the finest texture level."""


@dataclass(frozen=True)
class Layout:
    """Where things are across one street, metres. d is positive to the left.

    Attributes:
        lanes: Lanes per direction; traffic keeps to the right.
        lane_width: Width of a lane.
        parking: Width of the parking lane (right, left), 0 for none.
        bike: Width of the cycle lane (right, left), 0 for none.
        verge: Width of the grass verge (right, left).
        sidewalk: Width of the sidewalk (right, left).
        setback: Distance from sidewalk to walls.
        junctions: (s, half width) of each side street.
        crossings: s of each zebra crossing.
    """

    lanes: int
    lane_width: float
    parking: tuple[float, float]
    bike: tuple[float, float]
    verge: tuple[float, float]
    sidewalk: tuple[float, float]
    setback: float
    junctions: tuple[tuple[float, float], ...]
    crossings: tuple[float, ...]

    def kerb(self, side: int) -> float:
        """Distance from the centre line to the kerb; side 0 is right, 1 is left."""
        return self.lanes * self.lane_width + self.parking[side] + self.bike[side]

    def wall(self, side: int) -> float:
        """Distance from the centre line to the walls; side 0 is right, 1 is left."""
        return self.kerb(side) + self.verge[side] + self.sidewalk[side] + self.setback


def draw_layout(town: Town, rng: np.random.Generator) -> Layout:
    """Draw a street of the town."""

    def maybe(probability: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < probability else 0.0

    junctions: list[tuple[float, float]] = []
    s = float(rng.uniform(15, 60))
    while s < LENGTH_M - 20:
        junctions.append((s, float(rng.uniform(3.2, 5.5))))
        s += float(rng.uniform(70, 150))
    crossings = [at + (half + 4.5) * (1 if rng.random() < 0.5 else -1) for at, half in junctions]
    if rng.random() < 0.6:
        crossings.append(float(rng.uniform(0, LENGTH_M)))
    return Layout(
        lanes=int(rng.choice(town.lanes)),
        lane_width=float(rng.uniform(*town.lane_width)),
        parking=(maybe(town.parking, 2.0, 2.4), maybe(town.parking, 2.0, 2.4)),
        bike=(maybe(town.bike, 1.4, 1.9), maybe(town.bike, 1.4, 1.9)),
        verge=(maybe(town.verge, 0.8, 2.5), maybe(town.verge, 0.8, 2.5)),
        sidewalk=(float(rng.uniform(*town.sidewalk)), float(rng.uniform(*town.sidewalk))),
        setback=float(rng.uniform(*town.setback)),
        junctions=tuple(junctions),
        crossings=tuple(c % LENGTH_M for c in crossings),
    )


class Ground:
    """Colour and drivable area of a street, as mip levels in road coordinates.

    Attributes:
        levels: RGB textures; level n has PIXELS_PER_M / 2**n pixels per metre. Row 0 is d = HALF_WIDTH_M,
            columns run along s.
        drivable: (H, W) uint8 of level 1, 255 where a vehicle may drive.
    """

    def __init__(self, layout: Layout, town: Town, weather: Weather, rng: np.random.Generator) -> None:
        self.layout = layout
        self._rng = rng
        columns, rows = int(LENGTH_M * PIXELS_PER_M), int(2 * HALF_WIDTH_M * PIXELS_PER_M)
        self._canvas = np.empty((rows, columns, 3), np.uint8)
        self._road = np.zeros((rows, columns), np.uint8)
        self._paint_surfaces(town)
        self._paint_markings(town)
        self._wear()
        light = weather.ambient + weather.sun_light * max(float(weather.sun[2]), 0.0)
        light = light * (1 - 0.3 * weather.wet)
        lut = np.clip(np.arange(256)[:, None] * light[None], 0, 255).astype(np.uint8)
        self._canvas = cv2.LUT(self._canvas, lut[None])  # type: ignore[assignment]
        self.levels: list[Image] = [self._canvas]
        for _ in range(3):
            self.levels.append(cv2.pyrDown(self.levels[-1]))  # type: ignore[arg-type]
        self.drivable: Image = self._road[::2, ::2].copy()
        del self._canvas, self._road

    def darken(self, polygons: list[NDArray[np.float64]], strength: float) -> None:
        """Shade polygons given in road coordinates (N, 2) (s, d), wrapping along s.

        Args:
            polygons: Outlines in metres.
            strength: Share of the light that is taken away.
        """
        scale = PIXELS_PER_M / 4
        rows, columns = self.levels[2].shape[:2]
        mask = np.zeros((rows, columns), np.uint8)
        for polygon in polygons:
            for shift in (-LENGTH_M, 0.0, LENGTH_M):
                points = np.stack([polygon[:, 0] + shift, HALF_WIDTH_M - polygon[:, 1]], 1) * scale
                cv2.fillPoly(mask, [points.round().astype(np.int32)], 255)
        mask = cv2.blur(mask, (3, 3))  # type: ignore[assignment]
        for number, level in enumerate(self.levels):
            size = (level.shape[1], level.shape[0])
            keep = (255 - cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) * strength).astype(np.uint8)
            self.levels[number] = cv2.multiply(level, cv2.merge([keep] * 3), scale=1 / 255)  # type: ignore[assignment]

    def _band(
        self, low: float, high: float, colour: NDArray[np.float64], start: float = 0, end: float = LENGTH_M
    ) -> None:
        top, bottom = sorted((HALF_WIDTH_M - low, HALF_WIDTH_M - high))
        rows = slice(max(round(top * PIXELS_PER_M), 0), max(round(bottom * PIXELS_PER_M), 0))
        for shift in (-LENGTH_M, 0.0, LENGTH_M):
            left, right = round((start + shift) * PIXELS_PER_M), round((end + shift) * PIXELS_PER_M)
            left, right = max(left, 0), min(right, self._canvas.shape[1])
            if left < right:
                self._canvas[rows, left:right] = np.clip(colour, 0, 255)

    def _paint_surfaces(self, town: Town) -> None:
        rng, layout = self._rng, self.layout
        grass = np.asarray(town.foliage[rng.integers(len(town.foliage))]) * rng.uniform(0.9, 1.25, 3)
        paving = np.asarray(town.paving[rng.integers(len(town.paving))]) * rng.uniform(0.88, 1.12)
        yard = grass if town.verge > 0.3 else paving * rng.uniform(0.8, 0.95)
        asphalt = rng.uniform(*town.asphalt) * rng.uniform(0.96, 1.04, 3)
        self._canvas[:] = np.clip(yard, 0, 255)
        for side, sign in ((0, -1), (1, 1)):
            kerb = layout.kerb(side)
            verge = kerb + 0.2 + layout.verge[side]
            outer = kerb + layout.verge[side] + layout.sidewalk[side]
            self._band(sign * verge, sign * outer, paving)
            slab = float(rng.uniform(0.5, 1.5))
            for s in np.arange(0, LENGTH_M, slab):  # joints between slabs
                self._band(sign * verge, sign * outer, paving * 0.84, float(s), float(s) + 0.06)
            self._band(sign * (verge + outer) / 2, sign * ((verge + outer) / 2 + 0.06), paving * 0.84)
            self._band(sign * kerb, sign * verge, grass if layout.verge[side] else paving)
            self._band(sign * kerb, sign * (kerb + 0.2), paving * 1.18 + 6)
            self._band(sign * (kerb - 0.12), sign * kerb, asphalt * 0.62)
        right, left = layout.kerb(0), layout.kerb(1)
        self._band(-right + 0.1, left - 0.1, asphalt)
        road_rows = slice(round((HALF_WIDTH_M - left) * PIXELS_PER_M), round((HALF_WIDTH_M + right) * PIXELS_PER_M))
        self._road[road_rows] = 255
        red = asphalt * np.array([1.5, 0.75, 0.7]) if rng.random() < 0.4 else asphalt
        for side, sign in ((0, -1), (1, 1)):
            edge = layout.lanes * layout.lane_width
            if layout.bike[side]:
                self._band(sign * edge, sign * (edge + layout.bike[side]), red)
        for s, half in layout.junctions:
            for sign, kerb in ((-1, right), (1, left)):
                for end in (-1, 1):
                    self._band(sign * kerb, sign * 99, paving * 1.15, *sorted((s + end * half, s + end * (half + 0.2))))
                    self._band(
                        sign * (kerb + 0.2),
                        sign * 99,
                        paving,
                        *sorted((s + end * (half + 0.2), s + end * (half + 1.8))),
                    )
                self._band(sign * (kerb - 0.12), sign * 99, asphalt, s - half, s + half)
            columns = slice(max(round((s - half) * PIXELS_PER_M), 0), round((s + half) * PIXELS_PER_M))
            self._road[:, columns] = 255
        for _ in range(int(rng.integers(2, 14))):  # repairs
            s, d = rng.uniform(0, LENGTH_M), rng.uniform(-right + 0.4, left - 2)
            tone = asphalt * rng.uniform(0.75, 1.15)
            self._band(d, min(d + rng.uniform(0.5, 2.2), left - 0.3), tone, s, s + rng.uniform(0.8, 9))

    def _paint_markings(self, town: Town) -> None:
        rng, layout = self._rng, self.layout
        white = np.full(3, rng.uniform(190, 245))
        thick = float(rng.uniform(0.1, 0.16))
        period = float(rng.choice([6.0, 9.0, 12.0]))
        dash = period * float(rng.choice([0.33, 0.5]))
        starts = np.arange(0, LENGTH_M, LENGTH_M / round(LENGTH_M / period))

        def dashes(d: float, colour: NDArray[np.float64]) -> None:
            for s in starts:
                self._band(d - thick / 2, d + thick / 2, colour, float(s), float(s) + dash)

        if town.centre_line is not None:
            colour = np.asarray(town.centre_line) * rng.uniform(0.85, 1.02)
            if rng.random() < 0.5:
                self._band(-0.12 - thick, -0.12, colour)
                self._band(0.12, 0.12 + thick, colour)
            else:
                dashes(0.0, colour)
        for side, sign in ((0, -1), (1, 1)):
            for lane in range(1, layout.lanes):
                dashes(sign * lane * layout.lane_width, white)
            edge = layout.lanes * layout.lane_width
            if layout.bike[side] or layout.parking[side] or rng.random() < 0.4:
                self._band(sign * edge - thick / 2, sign * edge + thick / 2, white)
            if layout.bike[side] and layout.parking[side]:
                self._band(sign * (edge + layout.bike[side]), sign * (edge + layout.bike[side] + thick), white)
            if layout.parking[side] and rng.random() < 0.6:
                outer = layout.kerb(side)
                for s in np.arange(0, LENGTH_M, LENGTH_M / 42):
                    self._band(sign * (outer - layout.parking[side]), sign * outer, white, float(s), float(s) + 0.1)
        right, left = layout.kerb(0), layout.kerb(1)
        for s in layout.crossings:
            for d in np.arange(-right + 0.5, left - 0.5, 1.0):
                self._band(float(d), float(d) + 0.5, white, s - 1.6, s + 1.6)
            self._band(-right + 0.3, -0.2, white, s - 3.0, s - 2.7)
            self._band(0.2, left - 0.3, white, s + 2.7, s + 3.0)

    def _wear(self) -> None:
        """Multiply by grain and stains so that no surface is one colour."""
        rng = self._rng
        rows, columns = self._canvas.shape[:2]
        fine = rng.normal(0, rng.uniform(5, 11), (256, 512)).astype(np.float32)
        fine += cv2.resize(rng.normal(0, 7, (64, 128)).astype(np.float32), (512, 256))
        coarse = rng.normal(0, rng.uniform(3, 9), (24, 64)).astype(np.float32)
        field = np.tile(fine, (rows // 256, columns // 512))
        field += cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
        for lane in range(-self.layout.lanes, self.layout.lanes):  # tyre tracks
            for track in (0.27, 0.73):
                d = (lane + track) * self.layout.lane_width
                row = round((HALF_WIDTH_M - d) * PIXELS_PER_M)
                field[row - 5 : row + 5] -= 5
        keep = np.clip(128 + field, 0, 255).astype(np.uint8)
        self._canvas = cv2.multiply(self._canvas, cv2.merge([keep] * 3), scale=1 / 128)  # type: ignore[assignment]
