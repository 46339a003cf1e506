"""Drawing of solid things into one camera's image: polygons, figures, facades and sprites."""

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.mesh import GLASS, LAMP, Mesh
from surround.people import BALL, HULL, LIMB, RING, Shape
from surround.rig import CameraInfo
from surround.weather import Weather

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

NEAR_M = 0.25
"""Nothing nearer than this forward depth is drawn."""

_FIXED = 4  # fractional bits of the coordinates given to OpenCV
_FAR_PX = 8000.0


def clip_near(points: Array) -> Array:
    """Cut a convex polygon (N, 3) in the camera frame at the near plane; (M, 3), M may be 0."""
    depth = points[:, 2]
    if (depth >= NEAR_M).all():
        return points
    kept = []
    for i in range(len(points)):
        a, b = points[i - 1], points[i]
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            kept.append(a + (b - a) * ((NEAR_M - a[2]) / (b[2] - a[2])))
        if b[2] >= NEAR_M:
            kept.append(b)
    return np.array(kept).reshape(-1, 3)


class Canvas:
    """One image being drawn.

    Args:
        camera: Where it is seen from.
        weather: Light and air.
        image: (H, W, 3) RGB, drawn into.
    """

    def __init__(self, camera: CameraInfo, weather: Weather, image: Image) -> None:
        self.camera, self.weather, self.image = camera, weather, image
        self.rotation = camera.rotation()
        self.origin = np.asarray(camera.position)
        self._focal = np.array([camera.fx, camera.fy])
        self._centre = np.array([camera.cx, camera.cy])

    def to_camera(self, points: Array) -> Array:
        """Vehicle-frame points (N, 3) in the camera frame, (N, 3)."""
        moved: Array = (points - self.origin) @ self.rotation.T
        return moved

    def pixels(self, camera_points: Array) -> Array:
        """Continuous pixels (N, 2) of camera-frame points (N, 3) with positive depth."""
        at: Array = camera_points[:, :2] / camera_points[:, 2:] * self._focal + self._centre
        return np.clip(at, -_FAR_PX, _FAR_PX)

    def veil(self, colours: Array, depth: float) -> Array:
        """Colours (..., 3) seen through `depth` metres of air."""
        clear = float(np.exp(-self.weather.extinction * max(depth, 0.0)))
        seen: Array = colours * clear + self.weather.horizon * (1 - clear)
        return seen

    def light(self, normals: Array) -> Array:
        """Light multiplier (N, 3) of surfaces with these unit normals (N, 3), vehicle frame."""
        weather = self.weather
        direct = np.clip(normals @ weather.sun, 0, None)
        sky = 0.72 + 0.28 * normals[:, 2]
        lit: Array = sky[:, None] * weather.ambient + direct[:, None] * weather.sun_light
        return lit

    def fill(self, pixels: Array, colour: Array) -> None:
        """Fill a convex polygon of continuous pixels (N, 2) with anti-aliased edges."""
        fixed = ((pixels - 0.5) * (1 << _FIXED)).round().astype(np.int32)
        cv2.fillConvexPoly(self.image, fixed, colour.tolist(), cv2.LINE_AA, _FIXED)

    def draw_mesh(self, mesh: Mesh, position: tuple[float, float], heading: float) -> Array:
        """Draw a solid; returns the pixels (N, 2) of everything drawn, empty when nothing was in front."""
        cos, sin = np.cos(heading), np.sin(heading)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        move = np.array([position[0], position[1], 0.0])
        camera = self.to_camera(mesh.vertices @ turn + move)
        near = camera[:, 2].min() < NEAR_M
        centres = self.to_camera(mesh.centres @ turn + move)
        normals = mesh.normals @ turn
        facing = np.einsum("ij,ij->i", normals @ self.rotation.T, centres) < 0
        depth = float(centres[:, 2].mean())
        colours = self.light(normals) * mesh.colours
        glass = mesh.kinds == GLASS
        if glass.any():
            sky = self.weather.horizon * 0.55 + self.weather.zenith * 0.25
            share = np.clip(0.3 + 0.5 * normals[glass, 2:], 0.12, 0.6)
            colours[glass] = mesh.colours[glass] * 0.8 * self.weather.ambient + sky * share
        if self.weather.lamps:
            lamps = mesh.kinds == LAMP
            colours[lamps] = np.clip(mesh.colours[lamps] * 1.3 + 25, 0, 255)
        colours = np.clip(self.veil(colours, depth), 0, 255)
        if not near:
            pixels = self.pixels(camera)
            fixed = ((pixels - 0.5) * (1 << _FIXED)).round().astype(np.int32)
        drawn = []
        distance = np.linalg.norm(self.to_camera(mesh.part_centres @ turn + move), axis=1)
        order = sorted(range(len(mesh.parts)), key=lambda p: (mesh.layers[p], -distance[p]))
        shades = colours.tolist()
        for part in order:
            for index in range(mesh.parts[part].start, mesh.parts[part].stop):
                if not facing[index]:
                    continue
                face = mesh.faces[index]
                if near:
                    polygon = clip_near(camera[face])
                    if len(polygon) < 3:
                        continue
                    outline = self.pixels(polygon)
                    self.fill(outline, colours[index])
                    drawn.append(outline)
                else:
                    cv2.fillConvexPoly(self.image, fixed[face], shades[index], cv2.LINE_AA, _FIXED)
                    drawn.append(pixels[face])
        return np.concatenate(drawn) if drawn else np.empty((0, 2))

    def draw_figure(self, shapes: list[Shape], position: tuple[float, float], heading: float) -> Array:
        """Draw a person; returns the pixels (N, 2) of the outline, empty when too near or behind."""
        cos, sin = np.cos(heading), np.sin(heading)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        points = np.concatenate([shape.points for shape in shapes])
        camera = self.to_camera(points @ turn + np.array([position[0], position[1], 0.0]))
        if camera[:, 2].min() < NEAR_M:
            return np.empty((0, 2))
        pixels = self.pixels(camera)
        depth = float(camera[:, 2].mean())
        scale = float(self._focal[0]) / depth
        sideways = np.array([[-sin, cos, 0.0]])
        lit = self.light(np.array([[0.0, 0.0, 0.35]]))[0] * 0.8 + self.light(sideways)[0] * 0.25
        fixed = ((pixels - 0.5) * (1 << _FIXED)).round().astype(np.int32)
        outline, start = [], 0
        for shape in shapes:
            stop = start + len(shape.points)
            colour = np.clip(self.veil(shape.colour * lit, depth), 0, 255).tolist()
            at = fixed[start:stop]
            radius = shape.radius * scale
            thickness = max(round(2 * radius), 1)
            if shape.kind == LIMB:
                cv2.line(self.image, at[0].tolist(), at[1].tolist(), colour, thickness, cv2.LINE_AA, _FIXED)
            elif shape.kind == BALL:
                cv2.circle(
                    self.image, at[0].tolist(), max(round(radius * (1 << _FIXED)), 8), colour, -1, cv2.LINE_AA, _FIXED
                )
            elif shape.kind == RING:
                cv2.polylines(self.image, [at], True, colour, thickness, cv2.LINE_AA, _FIXED)
            elif shape.kind == HULL:
                cv2.fillConvexPoly(self.image, cv2.convexHull(at), colour, cv2.LINE_AA, _FIXED)
            grow = max(radius, 0.0)
            span = pixels[start:stop]
            outline += [span - grow, span + grow] if grow else [span]
            start = stop
        return np.concatenate(outline)

    def draw_wall(self, texture: Image, foot: Array, height: float, light: Array) -> Array:
        """Draw an upright rectangle with a texture; returns its outline in pixels (4, 2), or (0, 2) when unseen.

        Args:
            texture: (h, w, 3) RGB, unlit; its left column is at foot[0].
            foot: (2, 2) x, y of its lower edge in the vehicle frame, metres, left to right as seen.
            height: Metres.
            light: RGB multiplier (3,).
        """
        base = np.concatenate([foot, np.zeros((2, 1))], 1)
        camera = self.to_camera(np.concatenate([base, base + np.array([0, 0, height])]))
        depth = camera[:, 2]
        start, end = 0.0, 1.0
        if min(depth[0], depth[1]) < NEAR_M:
            if max(depth[0], depth[1]) < NEAR_M + 0.05:
                return np.empty((0, 2))
            cut = float((NEAR_M - depth[0]) / (depth[1] - depth[0]))
            start, end = (cut, 1.0) if depth[0] < NEAR_M else (0.0, cut)
        corners = [camera[0], camera[1], camera[3], camera[2]]
        low = [corners[0] + (corners[1] - corners[0]) * t for t in (start, end)]
        high = [corners[3] + (corners[2] - corners[3]) * t for t in (start, end)]
        quad = np.array([low[0], low[1], high[1], high[0]])
        if quad[:, 2].min() < 0.1:
            return np.empty((0, 2))
        pixels = quad[:, :2] / quad[:, 2:] * self._focal + self._centre
        if pixels[0, 0] >= pixels[1, 0] - 0.5:
            return np.empty((0, 2))
        rows, columns = self.image.shape[:2]
        x0, y0 = np.floor(pixels.min(0)).clip((0, 0), (columns, rows)).astype(int)
        x1, y1 = np.ceil(pixels.max(0)).clip((0, 0), (columns, rows)).astype(int)
        if x1 - x0 < 1 or y1 - y0 < 1:
            return np.empty((0, 2))
        while texture.shape[0] > 2.2 * (pixels[:, 1].max() - pixels[:, 1].min()) and min(texture.shape[:2]) > 8:
            texture = cv2.resize(texture, (texture.shape[1] // 2, texture.shape[0] // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        clear = float(np.exp(-self.weather.extinction * float(quad[:, 2].mean())))
        ramp = np.arange(256)[:, None] * light * clear + self.weather.horizon * (1 - clear)
        texture = cv2.LUT(texture, np.clip(ramp, 0, 255).astype(np.uint8)[None])  # type: ignore[assignment]
        h, w = texture.shape[:2]
        source = np.array([(start * w, h), (end * w, h), (end * w, 0), (start * w, 0)], np.float32) - 0.5
        target = (pixels - (x0, y0) - 0.5).astype(np.float32)
        transform = cv2.getPerspectiveTransform(source, target)
        patch = self.image[y0:y1, x0:x1]
        warped = cv2.warpPerspective(
            texture, transform, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros(patch.shape[:2], np.uint8)
        shape = (np.clip(target, -_FAR_PX, _FAR_PX) * (1 << _FIXED)).round().astype(np.int32)
        cv2.fillConvexPoly(mask, shape, 255, cv2.LINE_8, _FIXED)
        cv2.copyTo(warped, mask, patch)
        outline: Array = np.clip(pixels, -_FAR_PX, _FAR_PX)
        return outline

    def draw_sprite(self, sprite: Image, foot: Array, height: float, width: float) -> Array:
        """Draw an upright RGBA sprite facing the camera; returns its crown's outline (N, 2), maybe empty."""
        camera = self.to_camera(np.array([[foot[0], foot[1], 0.0], [foot[0], foot[1], height]]))
        if camera[:, 2].min() < 0.8:
            return np.empty((0, 2))
        pixels = self.pixels(camera)
        depth = float(camera[0, 2])
        half = width / 2 * float(self._focal[0]) / depth
        rows, columns = self.image.shape[:2]
        left, top, bottom = float(pixels[0, 0] - half), float(pixels[1, 1]), float(pixels[0, 1])
        x0, x1 = int(np.clip(np.floor(left), 0, columns)), int(np.clip(np.ceil(left + 2 * half), 0, columns))
        y0, y1 = int(np.clip(np.floor(top), 0, rows)), int(np.clip(np.ceil(bottom), 0, rows))
        if x1 <= x0 or y1 <= y0 or bottom - top < 3:
            return np.empty((0, 2))
        h, w = sprite.shape[:2]
        across, down = 2 * half / w, (bottom - top) / h
        if down < 0.5:
            shrink = max(down, 0.06)
            sprite = cv2.resize(
                sprite, (max(int(w * shrink), 2), max(int(h * shrink), 2)), interpolation=cv2.INTER_AREA
            )  # type: ignore[assignment]
            across, down = 2 * half / sprite.shape[1], (bottom - top) / sprite.shape[0]
        transform = np.array([[across, 0, left - x0], [0, down, top - y0]])
        warped = cv2.warpAffine(sprite, transform, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        light = self.light(np.array([[0.0, 0.0, 0.6]]))[0]
        clear = float(np.exp(-self.weather.extinction * depth))
        ramp = np.arange(256)[:, None] * light * clear + self.weather.horizon * (1 - clear)
        colour = cv2.LUT(warped[..., :3], np.clip(ramp, 0, 255).astype(np.uint8)[None])
        mask = cv2.threshold(warped[..., 3], 110, 255, cv2.THRESH_BINARY)[1]
        cv2.copyTo(colour, mask, self.image[y0:y1, x0:x1])
        angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        middle = top + (bottom - top) * 0.36
        return np.stack([pixels[0, 0] + half * 0.75 * np.cos(angle), middle + (bottom - top) * 0.3 * np.sin(angle)], 1)
