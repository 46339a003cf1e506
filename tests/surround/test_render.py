import copy
import dataclasses

import numpy as np
import pytest

from surround.actors import Actor
from surround.mesh import Mesh
from surround.render import Renderer
from surround.rig import CameraInfo, surround_rig
from surround.scene import Scene, corners_of, size_of
from surround.spec import LABELS
from surround.towns import HELD_OUT_TOWNS, TOWNS, TRAINING_TOWNS
from surround.truth import MASK_SCALE

TOWN = TOWNS["riverside"]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(11, TOWN, "overcast")


def alone(scene: Scene, actors: tuple[Actor, ...]) -> Scene:
    other = copy.copy(scene)
    other.actors = actors
    other.posts, other.plants = [], []
    return other


def test_the_same_seed_gives_the_same_bytes(scene: Scene) -> None:
    for camera in surround_rig()[:3]:
        a = Renderer(scene, camera).render(0.5)
        b = Renderer(Scene(11, TOWN, "overcast"), camera).render(0.5)
        assert a.image.tobytes() == b.image.tobytes()
        for field in dataclasses.fields(a.truth):
            assert np.array_equal(getattr(a.truth, field.name), getattr(b.truth, field.name)), field.name


def test_rendering_leaves_no_trace_in_later_frames(scene: Scene) -> None:
    camera = surround_rig()[0]
    renderer = Renderer(scene, camera)
    first = renderer.render(0.0).image.copy()
    renderer.render(3.0)
    assert np.array_equal(renderer.render(0.0).image, first)


def test_seed_town_time_and_weather_change_the_picture(scene: Scene) -> None:
    camera = surround_rig(160, 96)[0]
    pictures = [
        Renderer(other, camera).render(time).image.tobytes()
        for other, time in (
            (scene, 0.0), (scene, 1.0), (Scene(12, TOWN, "overcast"), 0.0),
            (Scene(11, TOWNS["suburb"], "overcast"), 0.0), (Scene(11, TOWN, "dusk"), 0.0),
        )
    ]  # fmt: skip
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (640, 384), (333, 217), (64, 48)])
def test_any_size(scene: Scene, width: int, height: int) -> None:
    for camera in surround_rig(width, height):
        frame = Renderer(scene, camera).render(0.0)
        assert frame.image.shape == (height, width, 3)
        assert frame.image.dtype == np.uint8
        assert frame.truth.drivable.shape == (-(-height // MASK_SCALE), -(-width // MASK_SCALE))


@pytest.mark.parametrize("town", list(TOWNS.values()), ids=list(TOWNS))
def test_truth_is_well_formed_in_every_town(town: object) -> None:
    scene = Scene(5, town)  # type: ignore[arg-type]
    for camera in surround_rig(rng=np.random.default_rng(0)):
        truth = Renderer(scene, camera).render(0.4).truth
        assert (truth.boxes[:, :2] >= 0).all()
        assert (truth.boxes[:, 2] <= camera.width).all()
        assert (truth.boxes[:, 3] <= camera.height).all()
        assert (truth.boxes[:, 2:] > truth.boxes[:, :2]).all()
        assert set(truth.labels.tolist()) <= set(range(len(LABELS)))
        assert ((truth.visible > 0) & (truth.visible <= 1)).all()
        assert len(set(truth.actors.tolist())) == len(truth.actors)


def test_every_class_appears() -> None:
    seen: set[int] = set()
    for seed in range(4):
        scene = Scene(seed, TOWN)
        for camera in surround_rig():
            truth = Renderer(scene, camera).render(0.0).truth
            seen |= set(truth.labels[~truth.ignored].tolist())
    assert seen == set(range(len(LABELS)))


def test_a_box_bounds_exactly_what_an_object_changes(scene: Scene) -> None:
    empty = alone(scene, ())
    checked = 0
    for camera in surround_rig():
        plain = Renderer(empty, camera, shadows=False).render(0.0).image.astype(int)
        for actor in scene.actors:
            frame = Renderer(alone(scene, (actor,)), camera, shadows=False).render(0.0)
            if not len(frame.truth.boxes) or frame.truth.visible[0] < 0.9:
                continue
            changed = np.abs(frame.image - plain).max(2) > 0
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            x0, y0, x1, y1 = frame.truth.boxes[0]
            if y1 - y0 < 16:
                continue
            drawn = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            slack = 2.0 + 0.06 * max(x1 - x0, y1 - y0)  # anti-aliasing; the round ends of limbs
            np.testing.assert_allclose(drawn, (x0, y0, x1, y1), atol=slack)
            checked += 1
        if checked > 12:
            return
    assert checked > 4


def test_boxes_enclose_the_projected_solid_and_distance_is_forward_depth(scene: Scene) -> None:
    moment = scene.at(0.0)
    checked = 0
    for camera in surround_rig():
        truth = Renderer(scene, camera).render(0.0).truth
        by_id = {placed.actor.id: placed for placed in moment.actors}
        for box, distance, actor in zip(truth.boxes, truth.distances, truth.actors, strict=True):
            placed = by_id[int(actor)]
            size = size_of(placed.actor)
            centre = np.array([[*placed.position, size[2] / 2]])
            assert distance == pytest.approx(camera.to_camera(centre)[0, 2], rel=1e-5)
            whole = box[0] > 0 and box[1] > 0 and box[2] < camera.width and box[3] < camera.height
            if whole and isinstance(placed.actor.model, Mesh):
                pixels, _ = camera.project(corners_of(placed, size))
                slack = 1.5 + 0.05 * (pixels.max(0) - pixels.min(0)).max()
                assert (box[:2] >= pixels.min(0) - slack).all()
                assert (box[2:] <= pixels.max(0) + slack).all()
                checked += 1
    assert checked > 5


def test_what_stands_behind_another_is_ignored(scene: Scene) -> None:
    camera = surround_rig()[0]
    truck = next(actor for actor in Scene(1, TOWN).actors if actor.label == LABELS.index("truck"))
    person = next(actor for actor in scene.actors if actor.label == LABELS.index("pedestrian"))
    own_d = scene.at(0.0).road.offset
    still = {"speed": 0.0, "fixed": True, "sway": (0.0, 0.0, 0.0), "d": own_d, "heading": 0.0}
    near = dataclasses.replace(truck, id=1, s=14.0 + scene.at(0.0).vehicle_s, **still)
    far = dataclasses.replace(person, id=2, s=30.0 + scene.at(0.0).vehicle_s, **still)
    open_view = Renderer(alone(scene, (far,)), camera).render(0.0).truth
    assert not open_view.ignored[0]
    hidden = Renderer(alone(scene, (near, far)), camera).render(0.0).truth
    kept = hidden.ignored[hidden.actors == 2]
    assert len(kept) == 0 or kept.all()
    assert not hidden.ignored[hidden.actors == 1].any()


def test_drivable_is_the_road_ahead_and_not_the_sidewalk(scene: Scene) -> None:
    empty = alone(scene, ())
    camera = surround_rig()[0]
    mask = Renderer(empty, camera).render(0.0).truth.drivable
    road = empty.at(0.0).road
    layout = empty.layout
    s = np.array([8.0, 12.0, 18.0])
    clear = [at for at in s if all(abs(at - j) > half + 4 for j, half in layout.junctions)]
    for at in clear or [8.0]:
        for d, expected in ((road.offset, True), (0.5, True), (-layout.kerb(0) - 1.0, False)):
            ground = road.to_vehicle(np.array([at]), np.array([d]))[0]
            pixel, depth = camera.project(np.array([[*ground, 0.0]]))
            column, row = (pixel[0] / MASK_SCALE).astype(int)
            if depth[0] > 0 and 0 <= column < mask.shape[1] and 0 <= row < mask.shape[0]:
                assert mask[row, column] == expected, (at, d)


def test_objects_cover_the_drivable_area(scene: Scene) -> None:
    camera = surround_rig()[0]
    busy = Renderer(alone(scene, scene.actors), camera).render(0.0).truth.drivable
    bare = Renderer(alone(scene, ()), camera).render(0.0).truth.drivable
    assert busy.sum() < bare.sum()
    assert not (busy & ~bare).any()


def test_the_scene_moves(scene: Scene) -> None:
    moving = next(seed for seed in range(20) if Scene(seed, TOWN).speed > 0)
    a, b = (Scene(moving, TOWN).at(time) for time in (0.0, 1 / 30))
    assert b.vehicle_s > a.vehicle_s
    steps = [np.hypot(p.position[0] - q.position[0], p.position[1] - q.position[1])
             for p, q in zip(a.actors, b.actors, strict=True)]  # fmt: skip
    assert 0 < np.median(steps) < 2


def test_held_out_towns_share_no_models_and_no_weather_with_training() -> None:
    for name in ("cars", "trucks", "weathers", "facades"):
        trained = {value for town in TRAINING_TOWNS for value in getattr(town, name)}
        unseen = {value for town in HELD_OUT_TOWNS for value in getattr(town, name)}
        assert not trained & unseen, name


def test_a_rolled_camera_is_refused(scene: Scene) -> None:
    camera: CameraInfo = dataclasses.replace(surround_rig()[0], roll=0.1)
    with pytest.raises(ValueError, match=r"roll 0\.1"):
        Renderer(scene, camera)
