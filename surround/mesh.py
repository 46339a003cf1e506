"""Solid models as shaded convex polygons."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float, float]

MATTE, GLASS, LAMP = 0, 1, 2
"""Surface kinds: shaded by light; mirrors some sky; shines when lamps are on."""


@dataclass(frozen=True)
class Mesh:
    """Convex polygons in an object frame: x forward, y left, z up, origin on the ground at the centre.

    Attributes:
        vertices: (V, 3) metres.
        faces: Vertex indices of each polygon, F arrays.
        normals: (F, 3) outward unit normals.
        centres: (F, 3) metres.
        colours: (F, 3) RGB 0..255.
        kinds: (F,) MATTE, GLASS or LAMP.
        parts: Slices of `faces` that belong to one convex part. A part's faces are in drawing order.
        part_centres: (P, 3) metres.
        layers: (P,) parts of a higher layer are drawn over those of a lower one.
        size: (length, width, height) metres.
    """

    vertices: Array
    faces: tuple[NDArray[np.int64], ...]
    normals: Array
    centres: Array
    colours: Array
    kinds: NDArray[np.int64]
    parts: tuple[slice, ...]
    part_centres: Array
    layers: tuple[int, ...]
    size: tuple[float, float, float]


class MeshBuilder:
    """Collects parts and polygons, then freezes them with `build`."""

    def __init__(self) -> None:
        self._vertices: list[Array] = []
        self._count = 0
        self._faces: list[NDArray[np.int64]] = []
        self._normals: list[Array] = []
        self._colours: list[Array] = []
        self._kinds: list[int] = []
        self._starts: list[int] = []
        self._layers: list[int] = []

    def part(self, layer: int) -> None:
        """Start a part that is drawn over every lower layer."""
        self._starts.append(len(self._faces))
        self._layers.append(layer)

    def polygon(self, points: Array, colour: Array, kind: int = MATTE, normal: Array | None = None) -> None:
        """Add a convex polygon.

        Args:
            points: (N, 3) metres, counter-clockwise seen from outside.
            colour: RGB 0..255.
            kind: MATTE, GLASS or LAMP.
            normal: Outward normal; None takes it from the first three points.
        """
        if normal is None:
            normal = np.cross(points[1] - points[0], points[2] - points[0])
            normal = normal / (np.linalg.norm(normal) + 1e-12)
        self._vertices.append(points)
        self._faces.append(np.arange(self._count, self._count + len(points)))
        self._count += len(points)
        self._normals.append(normal)
        self._colours.append(np.asarray(colour, float))
        self._kinds.append(kind)

    def frustum(
        self,
        bottom: tuple[float, float, float, float],
        top: tuple[float, float, float, float],
        heights: tuple[float, float],
        colour: Array,
        roof: Array | None = None,
    ) -> dict[str, Array]:
        """Add a box with slanted sides.

        Args:
            bottom: (x rear, x front, y right, y left) metres.
            top: The same of the upper rectangle.
            heights: (z bottom, z top) metres.
            colour: RGB of the sides.
            roof: RGB of the top; None is the sides' colour.

        Returns:
            The outline (4, 3) of each side by name (front, rear, left, right, top), starting at the bottom left
            corner as seen from outside, counter-clockwise.
        """

        def ring(box: tuple[float, float, float, float], z: float) -> list[Point]:
            x0, x1, y0, y1 = box
            return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]

        a, b, c, d = ring(bottom, heights[0])
        e, f, g, h = ring(top, heights[1])
        quads = {
            "right": np.array([a, b, f, e]),
            "front": np.array([b, c, g, f]),
            "left": np.array([c, d, h, g]),
            "rear": np.array([d, a, e, h]),
            "top": np.array([e, f, g, h]),
        }
        for name, quad in quads.items():
            self.polygon(quad, roof if name == "top" and roof is not None else colour)
        return quads

    def decal(
        self, quad: Array, across: tuple[float, float], up: tuple[float, float], colour: Array, kind: int = MATTE
    ) -> None:
        """Add a rectangle lying on a face.

        Args:
            quad: The face's outline (4, 3) as `frustum` returns it.
            across: (left, right) edges as shares of the face's width.
            up: (bottom, top) edges as shares of the face's height.
            colour: RGB 0..255.
            kind: MATTE, GLASS or LAMP.
        """

        def at(u: float, v: float) -> Array:
            low, high = quad[0] + (quad[1] - quad[0]) * u, quad[3] + (quad[2] - quad[3]) * u
            point: Array = low + (high - low) * v
            return point

        corners = [(across[0], up[0]), (across[1], up[0]), (across[1], up[1]), (across[0], up[1])]
        self.polygon(np.array([at(u, v) for u, v in corners]), colour, kind)

    def wheel(self, x: float, y: float, radius: float, rim: Array) -> None:
        """Add a wheel's outer face: tyre and rim, looking away from the vehicle's centre line."""
        outward = np.array([0.0, np.sign(y), 0.0])
        for size, colour, step in ((1.0, np.array([24.0, 24, 26]), 12), (0.62, rim, 10), (0.2, rim * 0.4, 6)):
            angle = np.linspace(0, 2 * np.pi, step, endpoint=False) * -np.sign(y)
            circle = np.stack(
                [x + radius * size * np.cos(angle), np.full(step, y), radius + radius * size * np.sin(angle)], 1
            )
            self.polygon(circle, colour, MATTE, outward)

    def build(self) -> Mesh:
        """Freeze what was added."""
        vertices = np.concatenate(self._vertices)
        ends = [*self._starts[1:], len(self._faces)]
        parts = tuple(slice(a, b) for a, b in zip(self._starts, ends, strict=True))
        centres = np.stack([vertices[face].mean(0) for face in self._faces])
        span = vertices.max(0) - vertices.min(0)
        return Mesh(
            vertices=vertices,
            faces=tuple(self._faces),
            normals=np.stack(self._normals),
            centres=centres,
            colours=np.stack(self._colours),
            kinds=np.array(self._kinds),
            parts=parts,
            part_centres=np.stack([centres[part].mean(0) for part in parts]),
            layers=tuple(self._layers),
            size=(float(span[0]), float(span[1]), float(vertices[:, 2].max())),
        )
