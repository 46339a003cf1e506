"""Draws a scene as one camera sees it, with the ground truth of what was drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.buildings import building_corners, draw_building
from surround.canvas import NEAR_M, Canvas, clip_near
from surround.ground import LENGTH_M
from surround.ground_view import GroundView
from surround.mesh import Mesh
from surround.people import pose
from surround.rig import CameraInfo
from surround.scene import Moment, Placed, Scene, corners_of, size_of
from surround.sensor import Sensor
from surround.sky import paint_sky
from surround.truth import Truth, claim, ignored_rule

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """An image (H, W, 3) RGB and its ground truth."""

    image: Image
    truth: Truth


@dataclass(frozen=True)
class _Drawn:
    """A road user that was drawn: its outline (N, 2) in pixels and how many mask cells it took."""

    placed: Placed
    outline: Array
    area: int


class Renderer:
    """Renders one scene through one camera.

    Args:
        scene: What is there.
        camera: Where from. Roll must be 0: the ground is drawn row by row.
        shadows: False leaves out moving shadows.
    """

    def __init__(self, scene: Scene, camera: CameraInfo, shadows: bool = True) -> None:
        if camera.roll != 0.0:
            raise ValueError(f"camera {camera.id!r} has roll {camera.roll}; the renderer draws level cameras only")
        self.scene, self.camera, self.shadows = scene, camera, shadows
        self._ground = GroundView(scene, camera)
        sky_rows = max(min(self._ground.horizon + 1, camera.height), 2)
        self._sky = paint_sky(camera, scene.weather, sky_rows, scene.seed)
        self._sensor = Sensor(camera, scene.weather)

    def render(self, time: float) -> Frame:
        """The frame at a time in seconds. Repeatable: the same time gives the same bytes."""
        moment = self.scene.at(time)
        camera = self.camera
        image = np.empty((camera.height, camera.width, 3), np.uint8)
        image[: len(self._sky)] = self._sky[: camera.height]
        canvas = Canvas(camera, self.scene.weather, image)
        drivable = self._ground.draw(image, moment)
        owners = np.where(drivable > 0, np.int32(-1), np.int32(0))
        if self.shadows:
            self._draw_shadows(canvas, moment)
        found: list[_Drawn] = []
        self._draw_backdrop(canvas, moment, owners, found)
        if self.scene.weather.wet > 0.05:
            self._ground.reflect(image)
        self._draw_street(canvas, moment, owners, found)
        truth = self._account(found, owners)
        return Frame(self._sensor.expose(image, [self.scene.seed, round(time * 1000)]), truth)

    def _draw_backdrop(self, canvas: Canvas, moment: Moment, owners: NDArray[np.int32], found: list[_Drawn]) -> None:
        """Draw the buildings and who stands between them in side streets, farthest first."""
        houses, eye = self.scene.buildings, canvas.origin[:2]
        corners = building_corners(self.scene, moment)
        distance = np.linalg.norm(corners - eye, axis=2).min(1)
        forward = (corners - eye) @ canvas.rotation[2, :2]
        sideways = (corners - eye) @ canvas.rotation[0, :2]
        view = canvas.camera.width / 2 / canvas.camera.fx * 1.05
        seen = (
            (forward.max(1) > 1) & ((sideways - view * forward).min(1) < 0) & ((sideways + view * forward).max(1) > 0)
        )
        queue = [(float(distance[i]), 0, int(i)) for i in np.flatnonzero(seen & (distance < 150))]
        queue += [(far, 1, i) for far, i in self._in_view(canvas, moment, True)]
        for _, kind, index in sorted(queue, reverse=True):
            if kind:
                self._draw_actor(canvas, moment.actors[index], owners, found)
            else:
                for outline in draw_building(canvas, houses[index], corners[index]):
                    claim(owners, outline, 0)

    def _draw_shadows(self, canvas: Canvas, moment: Moment) -> None:
        top, weather = self._ground.horizon, self.scene.weather
        mask = np.zeros((canvas.camera.height - top, canvas.camera.width), np.uint8)
        if mask.shape[0] < 2:
            return
        sun = weather.sun
        slide = -sun[:2] / max(float(sun[2]), 0.25)
        light = float(weather.sun_light.mean()) * max(float(sun[2]), 0.05)
        depth = round(235 * light / (light + float(weather.ambient.mean())))
        passes = ((True, depth), (False, 130)) if weather.casts_shadows else ((False, 130),)
        for cast, value in passes:
            for placed in moment.actors:
                if abs(placed.position[0]) + abs(placed.position[1]) > 90:
                    continue
                size = size_of(placed.actor)
                corners = corners_of(placed, size)[:4]
                if cast:
                    moved = corners.copy()
                    moved[:, :2] += slide * size[2] * 0.92
                    outline = cv2.convexHull(np.concatenate([corners, moved])[:, :2].astype(np.float32))[:, 0]
                    corners = np.concatenate([outline, np.zeros((len(outline), 1))], 1).astype(np.float64)
                polygon = clip_near(canvas.to_camera(corners))
                if len(polygon) < 3:
                    continue
                pixels = ((canvas.pixels(polygon) - (0, top) - 0.5) * 16).round().astype(np.int32)
                cv2.fillConvexPoly(mask, pixels, value, cv2.LINE_8, 4)
        mask = cv2.blur(mask, (5, 3))  # type: ignore[assignment]
        keep = cv2.bitwise_not(mask)
        ground = canvas.image[top:]
        cv2.multiply(ground, cv2.merge([keep] * 3), dst=ground, scale=1 / 255)

    def _in_view(self, canvas: Canvas, moment: Moment, side_street: bool) -> list[tuple[float, int]]:
        """Distance and index of the road users in view that are, or are not, between the buildings."""
        if not moment.actors:
            return []
        forward, right = canvas.rotation[2, :2], canvas.rotation[0, :2]
        view = canvas.camera.width / 2 / canvas.camera.fx * 1.05
        offset = np.array([p.position for p in moment.actors]) - canvas.origin[:2]
        reach = np.array([max(size_of(p.actor)[:2]) / 2 for p in moment.actors])
        across = np.array([p.actor.d for p in moment.actors])
        walls = np.where(across < 0, self.scene.layout.wall(0), self.scene.layout.wall(1))
        ahead, aside, distance = offset @ forward, offset @ right, np.linalg.norm(offset, axis=1)
        shown = (
            (ahead + reach > NEAR_M) & (np.abs(aside) < view * np.maximum(ahead, 0) + 2.2 * reach) & (distance < 150)
        )
        shown &= (np.abs(across) > walls) == side_street
        return [(float(distance[i]), int(i)) for i in np.flatnonzero(shown)]

    def _draw_street(self, canvas: Canvas, moment: Moment, owners: NDArray[np.int32], found: list[_Drawn]) -> None:
        """Draw trees, posts and the road users on the street, farthest first."""
        scene = self.scene
        spots = np.array([(p.s, p.d) for p in scene.plants] + [(p.s, p.d) for p in scene.posts]).reshape(-1, 2)
        along = (spots[:, 0] - moment.vehicle_s + LENGTH_M / 2) % LENGTH_M - LENGTH_M / 2
        still = moment.road.to_vehicle(along, spots[:, 1])
        offset = still - canvas.origin[:2]
        ahead, aside = offset @ canvas.rotation[2, :2], offset @ canvas.rotation[0, :2]
        distance = np.linalg.norm(offset, axis=1)
        view = canvas.camera.width / 2 / canvas.camera.fx * 1.05
        shown = (ahead > 0.5) & (np.abs(aside) < view * ahead + 6) & (distance < 150)
        queue = [(float(distance[i]), 0, int(i)) for i in np.flatnonzero(shown)]
        queue += [(far, 1, i) for far, i in self._in_view(canvas, moment, False)]
        for _, kind, index in sorted(queue, reverse=True):
            if kind:
                self._draw_actor(canvas, moment.actors[index], owners, found)
            elif index < len(scene.plants):
                plant = scene.plants[index]
                crown = canvas.draw_sprite(scene.sprites[plant.sprite], still[index], plant.height, plant.width)
                claim(owners, crown, 0)
            else:
                self._draw_post(canvas, still[index], index - len(scene.plants), moment)

    def _draw_actor(self, canvas: Canvas, placed: Placed, owners: NDArray[np.int32], found: list[_Drawn]) -> None:
        model = placed.actor.model
        if isinstance(model, Mesh):
            outline = canvas.draw_mesh(model, placed.position, placed.heading)
        else:
            outline = canvas.draw_figure(pose(model, placed.phase), placed.position, placed.heading)
        area = claim(owners, outline, placed.actor.id)
        if area:
            found.append(_Drawn(placed, outline, area))

    def _draw_post(self, canvas: Canvas, foot: Array, index: int, moment: Moment) -> None:
        post = self.scene.posts[index]
        side = np.array([-np.sin(moment.road.direction(0)), np.cos(moment.road.direction(0))]) * post.arm
        x, y = foot
        points = np.array([[x, y, 0.0], [x, y, post.height], [x + side[0], y + side[1], post.height + 0.2]])
        camera = canvas.to_camera(points)
        if camera[:, 2].min() < 1.0:
            return
        depth = float(camera[0, 2])
        pixels = ((canvas.pixels(camera) - 0.5) * 16).round().astype(int).tolist()
        scale = canvas.camera.fx / depth
        metal = np.clip(canvas.veil(np.array([88.0, 92, 94]) * canvas.weather.ambient, depth), 0, 255).tolist()
        cv2.line(canvas.image, pixels[0], pixels[1], metal, max(round(0.11 * scale), 1), cv2.LINE_AA, 4)
        if post.plate is not None:
            lit = canvas.light(np.array([[0.0, 0.0, 0.3]]))[0]
            for radius, colour in ((0.36, np.full(3, 235.0)), (0.31, post.plate)):
                shade = np.clip(canvas.veil(colour * lit, depth), 0, 255).tolist()
                cv2.circle(canvas.image, pixels[1], max(round(radius * scale * 16), 12), shade, -1, cv2.LINE_AA, 4)
            return
        cv2.line(canvas.image, pixels[1], pixels[2], metal, max(round(0.08 * scale), 1), cv2.LINE_AA, 4)
        if canvas.weather.lamps:
            cv2.circle(canvas.image, pixels[2], max(round(0.2 * scale * 16), 20), (255, 236, 190), -1, cv2.LINE_AA, 4)

    def _account(self, found: list[_Drawn], owners: NDArray[np.int32]) -> Truth:
        width, height = self.camera.width, self.camera.height
        counts = np.bincount(owners.ravel() + 1, minlength=len(self.scene.actors) + 2)
        rows = []
        for drawn in found:
            placed, outline, area = drawn.placed, drawn.outline, drawn.area
            low, high = outline.min(0), outline.max(0)
            x0, y0 = low.clip(0, (width, height))
            x1, y1 = high.clip(0, (width, height))
            if x1 - x0 < 1 or y1 - y0 < 1:
                continue
            inside = (x1 - x0) * (y1 - y0) / max(float(np.prod(high - low)), 1e-6)
            size = size_of(placed.actor)
            centre = np.array([[*placed.position, size[2] / 2]])
            distance = float(self.camera.to_camera(centre)[0, 2])
            share = min(counts[placed.actor.id + 1] / area, 1.0) * inside
            if share > 0.02:
                rows.append((x0, y0, x1, y1, placed.actor.label, distance, share, placed.actor.id))
        table = np.array(rows, np.float64).reshape(-1, 8)
        boxes = table[:, :4].astype(np.float32)
        distances, visible = table[:, 5].astype(np.float32), table[:, 6].astype(np.float32)
        return Truth(
            boxes=boxes,
            labels=table[:, 4].astype(np.int64),
            distances=distances,
            visible=visible,
            ignored=ignored_rule(boxes, distances, visible, height),
            actors=table[:, 7].astype(np.int64),
            drivable=owners == -1,
        )
