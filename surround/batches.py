"""Training batches: augmented frames with the maps that the network should answer."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.dataset import Cache
from surround.spec import INPUT_SIZE, LABELS, MEAN, REFERENCE_FOCAL_PX, STD, STRIDE
from surround.truth import MASK_SCALE

Array = NDArray[np.float32]

_LEAST_HEIGHT_PX = 9.0  # train on slightly smaller boxes than count
_MEAN, _STD = np.array(MEAN, np.float32), np.array(STD, np.float32)


@dataclass(frozen=True)
class Batch:
    """N frames and their targets; h and w are the frame size over STRIDE.

    Attributes:
        frames: (N, 3, H, W) normalised RGB.
        heat: (N, 4, h, w) Gaussian peaks, 1 at object centres.
        weight: (N, 4, h, w) 0 where an ignored object makes the heatmap's answer irrelevant, else 1.
        boxes: (N, 4, h, w) xyxy in pixels around object centres.
        distance: (N, 1, h, w) virtual distance in metres around object centres.
        share: (N, 1, h, w) weight of the cell in the box and distance losses; 0 away from objects.
        drivable: (N, 1, h, w) drivable share of the cell.
    """

    frames: Array
    heat: Array
    weight: Array
    boxes: Array
    distance: Array
    share: Array
    drivable: Array


def normalise(images: NDArray[np.uint8]) -> Array:
    """(N, H, W, 3) uint8 RGB to the network's input (N, 3, H, W)."""
    return np.ascontiguousarray(((images.astype(np.float32) - _MEAN) / _STD).transpose(0, 3, 1, 2))


def _photometric(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    gain = rng.uniform(0.75, 1.45) * rng.uniform(0.88, 1.12, 3)
    ramp = 255 * (np.arange(256)[:, None] / 255) ** rng.uniform(0.7, 1.25)
    table = (ramp - 118) * rng.uniform(0.75, 1.25) + 118
    table = table * gain + rng.uniform(-14, 14)
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])  # type: ignore[assignment]
    if rng.random() < 0.25:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = rng.uniform(0.3, 1.0)
        image = cv2.addWeighted(image, 1 - share, grey, share, 0)  # type: ignore[assignment]
    if rng.random() < 0.2:
        image = cv2.blur(image, (3, 3))  # type: ignore[assignment]
    if rng.random() < 0.15:
        image = image[..., rng.permutation(3)].copy()
    return image


def targets(objects: Array, focal: float, size: tuple[int, int]) -> tuple[Array, Array, Array, Array, Array]:
    """Target maps of one frame.

    Args:
        objects: (M, 8) as in `Cache.objects`, pixels of this frame.
        focal: Focal length in pixels of this frame.
        size: (width, height) of this frame.

    Returns:
        heat (4, h, w), weight (4, h, w), boxes (4, h, w), distance (1, h, w), share (1, h, w).
    """
    w, h = size[0] // STRIDE, size[1] // STRIDE
    heat = np.zeros((len(LABELS), h, w), np.float32)
    weight = np.ones_like(heat)
    boxes = np.zeros((4, h, w), np.float32)
    distance = np.ones((1, h, w), np.float32)
    share = np.zeros((1, h, w), np.float32)
    # Farthest first, so that the nearest object owns a contested cell.
    for x0, y0, x1, y1, label, metres, _, ignored in objects[np.argsort(-objects[:, 5])]:
        left, right = int(x0 // STRIDE), int(np.ceil(x1 / STRIDE))
        top, bottom = int(y0 // STRIDE), int(np.ceil(y1 / STRIDE))
        if ignored:
            weight[:, max(top, 0) : bottom, max(left, 0) : right] = 0
            continue
        column = int(np.clip((x0 + x1) / 2 / STRIDE, 0, w - 1))
        row = int(np.clip((y0 + y1) / 2 / STRIDE, 0, h - 1))
        spread_x = max((x1 - x0) / STRIDE / 9, 0.4)
        spread_y = max((y1 - y0) / STRIDE / 9, 0.4)
        reach_x, reach_y = int(3 * spread_x), int(3 * spread_y)
        columns = np.arange(max(column - reach_x, 0), min(column + reach_x + 1, w))
        rows = np.arange(max(row - reach_y, 0), min(row + reach_y + 1, h))
        bump = np.exp(-(((columns - column) / spread_x) ** 2)[None] / 2 - (((rows - row) / spread_y) ** 2)[:, None] / 2)
        area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        heat[int(label)][area] = np.maximum(heat[int(label)][area], bump)
        own = bump > 0.4
        for n, value in enumerate((x0, y0, x1, y1)):
            boxes[n][area][own] = value
        distance[0][area][own] = metres * REFERENCE_FOCAL_PX / focal
        share[0][area][own] = bump[own] / bump[own].sum()
        heat[int(label), row, column] = 1.0
        weight[int(label), row, column] = 1.0
    return heat, weight, boxes, distance, share


def _augment(
    cache: Cache, n: int, size: tuple[int, int], rng: np.random.Generator, zooms: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], Array, float, Array]:
    """One augmented frame: image, objects, focal length in pixels and drivable share per cell."""
    width, height = size
    whole = np.log(width / INPUT_SIZE[0])
    # Small training frames show anything from the whole view to a crop at full resolution, unless said otherwise.
    least, most = (whole - 0.25, 0.3) if zooms is None else (whole + zooms[0], whole + zooms[1])
    zoom = float(np.exp(rng.uniform(least, most)))
    flip = rng.random() < 0.5
    spare_x, spare_y = width - INPUT_SIZE[0] * zoom, height - INPUT_SIZE[1] * zoom
    shift_x, shift_y = spare_x * rng.random(), spare_y * rng.random()
    matrix = np.array([[zoom, 0, shift_x], [0, zoom, shift_y]])
    if flip:
        matrix[0] = (-zoom, 0, width - shift_x)
    pixel = matrix.copy()  # from pixel centres to pixel centres
    pixel[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    source = cache.images[n]
    if zoom < 0.7:  # shrink without aliasing first
        source = cv2.resize(source, (INPUT_SIZE[0] // 2, INPUT_SIZE[1] // 2), interpolation=cv2.INTER_AREA)
        pixel = matrix.copy()
        pixel[:, :2] *= 2
        pixel[:, 2] += pixel[:, :2] @ (0.5, 0.5) - 0.5
    image = cv2.warpAffine(source, pixel, size, flags=cv2.INTER_LINEAR, borderValue=(118, 118, 118))
    mask = matrix / STRIDE
    mask[:, :2] *= MASK_SCALE
    cells = (width // STRIDE, height // STRIDE)
    fine = (cells[0] * 4, cells[1] * 4)
    fine_matrix = mask * 4
    fine_matrix[:, 2] += fine_matrix[:, :2] @ (0.5, 0.5) - 0.5
    road = cv2.warpAffine(cache.drivable[n] * 255, fine_matrix, fine, flags=cv2.INTER_NEAREST)
    drivable = cv2.resize(road, cells, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    objects = cache.objects[n]
    objects = objects[objects[:, 4] >= 0].copy()
    boxes = objects[:, :4].reshape(-1, 2, 2) @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    low, high = boxes.min(1), boxes.max(1)
    full = np.prod(high - low, axis=1)
    low, high = low.clip(0, size), high.clip(0, size)
    inside = np.prod(high - low, axis=1) / np.maximum(full, 1e-6)
    objects[:, :2], objects[:, 2:4] = low, high
    tall = high[:, 1] - low[:, 1]
    # A network for small frames is asked for what is small in them.
    least_height_px = _LEAST_HEIGHT_PX * (1.0 if zooms is None else width / INPUT_SIZE[0])
    # Small and far objects are judged anew at this zoom; hidden ones stay ignored.
    hidden = (objects[:, 6] * inside < 0.4) | (objects[:, 5] < 1) | (objects[:, 5] > 80)
    objects[:, 7] = hidden | (tall < least_height_px)
    objects = objects[inside > 0.02]
    return image, objects, float(cache.focal[n] * zoom), drivable[None]  # type: ignore[return-value]


def draw_batch(
    cache: Cache,
    count: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    zooms: tuple[float, float] | None = None,
) -> Batch:
    """An augmented batch of `count` frames of `size` (width, height), multiples of 32; `surround.train.Phase.zoom`."""
    images, maps, roads = [], [], []
    for n in rng.integers(0, cache.frames, count):
        image, objects, focal, drivable = _augment(cache, int(n), size, rng, zooms)
        images.append(_photometric(image, rng))
        maps.append(targets(objects, focal, size))
        roads.append(drivable)
    heat, weight, boxes, distance, share = (np.stack(column) for column in zip(*maps, strict=True))
    return Batch(normalise(np.stack(images)), heat, weight, boxes, distance, share, np.stack(roads))
