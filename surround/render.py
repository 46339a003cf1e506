"""Draws a scene as one camera sees it, with the ground truth of what was drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.canvas import NEAR_M, Canvas, clip_near
from surround.ground import HALF_WIDTH_M, LENGTH_M, PIXELS_PER_M
from surround.mesh import Mesh
from surround.people import pose
from surround.rig import CameraInfo
from surround.scene import Moment, Placed, Scene, corners_of, size_of
from surround.sensor import Sensor
from surround.sky import paint_sky
from surround.street import Building
from surround.truth import MASK_SCALE, Truth, ignored_rule

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_CELL = 8  # image columns per column of the coarse ground grid
_FAR_GROUND_M = 260.0


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
        width, height = camera.width, camera.height
        rotation, origin = camera.rotation(), np.asarray(camera.position)
        columns = (np.arange(-1, width // _CELL + 2) + 0.5) * _CELL
        u, v = np.meshgrid(columns, np.arange(height) + 0.5)
        rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1) @ rotation
        fall = -rays[:, 0, 2]
        depth = np.where(fall > 1e-4, origin[2] / np.maximum(fall, 1e-4), np.inf)
        self._horizon = int(np.searchsorted(-depth, -_FAR_GROUND_M))  # first row that shows ground
        self._depth = depth[self._horizon :]
        ground = rays[self._horizon :] * self._depth[:, None, None] + origin
        self._x, self._y = ground[..., 0], ground[..., 1]
        sky_rows = max(min(self._horizon + 1, height), 2)
        self._sky = paint_sky(camera, scene.weather, sky_rows, scene.seed)
        clear = np.exp(-scene.weather.extinction * self._depth)[:, None, None]
        shape = (len(self._depth), width, 3)
        self._clear = np.ascontiguousarray(np.broadcast_to((clear * 255).round().astype(np.uint8), shape))
        air = (scene.weather.horizon * (1 - clear)).clip(0, 255).astype(np.uint8)
        self._air = np.ascontiguousarray(np.broadcast_to(air, shape))
        footprint = self._depth / camera.fx * np.sqrt(np.maximum(self._depth / origin[2], 1.0))
        level = np.log2(np.maximum(footprint * PIXELS_PER_M, 1e-6)) + 0.3
        self._levels = np.clip(level.round(), 0, len(scene.ground.levels) - 1).astype(int)
        self._sensor = Sensor(camera, scene.weather)

    def render(self, time: float) -> Frame:
        """The frame at a time in seconds. Repeatable: the same time gives the same bytes."""
        moment = self.scene.at(time)
        camera = self.camera
        image = np.empty((camera.height, camera.width, 3), np.uint8)
        image[: len(self._sky)] = self._sky[: camera.height]
        canvas = Canvas(camera, self.scene.weather, image)
        drivable = self._draw_ground(image, moment)
        owners = np.where(drivable > 0, np.int32(-1), np.int32(0))
        if self.shadows:
            self._draw_shadows(canvas, moment)
        found: list[_Drawn] = []
        self._draw_backdrop(canvas, moment, owners, found)
        if self.scene.weather.wet > 0.05:
            self._reflect(image)
        self._draw_street(canvas, moment, owners, found)
        truth = self._account(found, owners)
        return Frame(self._sensor.expose(image, [self.scene.seed, round(time * 1000)]), truth)

    def _draw_ground(self, image: Image, moment: Moment) -> Image:
        """Draw the ground; returns its drivable mask (ceil(H/2), ceil(W/2)), 255 where drivable."""
        camera, top = self.camera, self._horizon
        mask = np.zeros((-(-camera.height // MASK_SCALE), -(-camera.width // MASK_SCALE)), np.uint8)
        if top >= camera.height:
            return mask
        s, d = moment.road.from_vehicle(self._x, self._y)
        along = ((s + moment.vehicle_s % LENGTH_M) * PIXELS_PER_M).astype(np.float32)
        across = ((HALF_WIDTH_M - np.clip(d, -HALF_WIDTH_M + 0.1, HALF_WIDTH_M - 0.1)) * PIXELS_PER_M).astype(
            np.float32
        )
        grid = cv2.merge([along, across])
        wide = grid.shape[1] * _CELL
        start = 0
        while start < len(self._levels):
            level = int(self._levels[start])
            stop = start + int(np.searchsorted(-self._levels[start:], -level, side="right"))
            scaled = grid[start:stop] / 2**level - 0.5
            full = cv2.resize(scaled, (wide, stop - start), interpolation=cv2.INTER_LINEAR)[
                :, _CELL : _CELL + camera.width
            ]
            band = image[top + start : top + stop]
            cv2.remap(
                self.scene.ground.levels[level], full, None, cv2.INTER_LINEAR, dst=band, borderMode=cv2.BORDER_WRAP
            )
            start = stop
        ground = image[top:]
        cv2.multiply(ground, self._clear, dst=ground, scale=1 / 255)
        cv2.add(ground, self._air, dst=ground)
        first = top + top % MASK_SCALE
        rows = grid[first - top :: MASK_SCALE] / 2 - 0.5
        if len(rows):
            half = cv2.resize(rows, (wide // MASK_SCALE, len(rows)), interpolation=cv2.INTER_LINEAR)
            half = half[:, _CELL // MASK_SCALE : _CELL // MASK_SCALE + mask.shape[1]]
            mask[first // MASK_SCALE :] = cv2.remap(
                self.scene.ground.drivable, half, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP
            )
        return mask

    def _draw_backdrop(self, canvas: Canvas, moment: Moment, owners: NDArray[np.int32], found: list[_Drawn]) -> None:
        """Draw the buildings and who stands between them in side streets, farthest first."""
        houses, road, eye = self.scene.buildings, moment.road, canvas.origin[:2]
        middle = np.array([(h.start + h.end) / 2 for h in houses]) - moment.vehicle_s
        shift = (middle + LENGTH_M / 2) % LENGTH_M - LENGTH_M / 2 - middle - moment.vehicle_s
        start = np.array([h.start for h in houses]) + shift
        end = np.array([h.end for h in houses]) + shift
        front, back = np.array([h.front for h in houses]), np.array([h.back for h in houses])
        corners = np.stack(
            [road.to_vehicle(a, b) for a, b in ((start, front), (end, front), (end, back), (start, back))], 1
        )
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
                self._draw_building(canvas, houses[index], corners[index], owners)

    def _draw_building(self, canvas: Canvas, house: Building, base: Array, owners: NDArray[np.int32]) -> None:
        """Draw the walls that face the camera, then the roof. `base`: (4, 2) corners, vehicle frame."""
        eye = canvas.origin[:2]
        left = house.front > 0
        ring = base if left else base[::-1]  # counter-clockwise seen from above
        for wall in range(4):
            # Seen from outside, the left end of a wall of a counter-clockwise ring is its first corner.
            a, b = ring[wall], ring[(wall + 1) % 4]
            normal = np.array([b[1] - a[1], a[0] - b[0]])
            if normal @ (eye - a) <= 0:
                continue
            normal /= np.linalg.norm(normal) + 1e-9
            light = canvas.light(np.array([[normal[0], normal[1], 0.0]]))[0]
            texture = house.facade if wall % 2 == 0 else house.flank
            self._claim(owners, canvas.draw_wall(texture, np.array([a, b]), house.height, light), 0)
        if house.ridge:
            self._draw_roof(canvas, base, house.height, house.ridge, house.roof)

    def _draw_roof(self, canvas: Canvas, base: Array, height: float, ridge: float, colour: Array) -> None:
        eaves = np.concatenate([base, np.full((4, 1), height)], 1)
        top = np.array([(eaves[0] + eaves[3]) / 2, (eaves[1] + eaves[2]) / 2]) + (0, 0, ridge)
        for polygon, lit in (
            (np.array([eaves[1], eaves[2], top[1]]), 0.8),
            (np.array([eaves[3], eaves[0], top[0]]), 0.8),
            (np.array([eaves[0], eaves[1], top[1], top[0]]), 1.0),
        ):
            normal = np.cross(polygon[1] - polygon[0], polygon[2] - polygon[0])
            outward = np.sign(normal @ (polygon.mean(0) - eaves.mean(0)))
            if outward * (normal @ (canvas.origin - polygon[0])) <= 0:
                continue
            camera = clip_near(canvas.to_camera(polygon))
            if len(camera) < 3:
                continue
            light = canvas.light(np.array([[0.0, 0.0, 0.8]]))[0] * lit
            canvas.fill(canvas.pixels(camera), np.clip(canvas.veil(colour * light, float(camera[:, 2].mean())), 0, 255))

    def _reflect(self, image: Image) -> None:
        """Mirror what is above the horizon faintly in the wet ground."""
        top = self._horizon
        rows = min(top, image.shape[0] - top)
        if rows < 4:
            return
        small = cv2.resize(image[top - rows : top], (image.shape[1] // 4, rows // 4), interpolation=cv2.INTER_AREA)
        small = cv2.blur(small[::-1], (1, 9))
        ground = image[top:]
        mirror = cv2.resize(small, (image.shape[1], ground.shape[0]), interpolation=cv2.INTER_LINEAR)
        share = 0.3 * self.scene.weather.wet
        cv2.addWeighted(ground, 1 - share, mirror, share, 0, dst=ground)

    def _draw_shadows(self, canvas: Canvas, moment: Moment) -> None:
        top, weather = self._horizon, self.scene.weather
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
                    corners = cv2.convexHull(np.concatenate([corners, moved])[:, :2].astype(np.float32))[:, 0]
                    corners = np.concatenate([corners, np.zeros((len(corners), 1))], 1)
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
        spots = np.array([(p.s, p.d) for p in (*scene.plants, *scene.posts)]).reshape(-1, 2)
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
                self._claim(owners, crown, 0)
            else:
                self._draw_post(canvas, still[index], index - len(scene.plants), moment)

    def _draw_actor(self, canvas: Canvas, placed: Placed, owners: NDArray[np.int32], found: list[_Drawn]) -> None:
        model = placed.actor.model
        if isinstance(model, Mesh):
            outline = canvas.draw_mesh(model, placed.position, placed.heading)
        else:
            outline = canvas.draw_figure(pose(model, placed.phase), placed.position, placed.heading)
        area = self._claim(owners, outline, placed.actor.id)
        if area:
            found.append(_Drawn(placed, outline, area))

    def _claim(self, owners: NDArray[np.int32], outline: Array, owner: int) -> int:
        """Mark the hull of an outline as owned; returns how many cells that is."""
        if not len(outline):
            return 0
        hull = cv2.convexHull(((outline / MASK_SCALE - 0.5) * 16).round().astype(np.int32))
        x0, y0 = (hull[:, 0].min(0) // 16 - 1).clip(0)
        x1, y1 = hull[:, 0].max(0) // 16 + 2
        if x0 >= owners.shape[1] or y0 >= owners.shape[0] or x1 <= 0 or y1 <= 0:
            return 0
        cv2.fillConvexPoly(owners, hull, owner, cv2.LINE_8, 4)
        return int(np.count_nonzero(owners[y0:y1, x0:x1] == owner))

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
