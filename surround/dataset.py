"""Rendered frames with their truth, cached as arrays on disk."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.render import Frame, Renderer
from surround.rig import CameraInfo, surround_rig
from surround.scene import Scene
from surround.spec import INPUT_SIZE
from surround.towns import HELD_OUT_TOWNS, TRAINING_TOWNS, Town
from surround.truth import MASK_SCALE

SPLITS: dict[str, tuple[tuple[Town, ...], int]] = {
    "train": (TRAINING_TOWNS, 1_000_000),
    "validation": (TRAINING_TOWNS, 2_000_000),
    "heldout": (HELD_OUT_TOWNS, 3_000_000),
}
"""Towns and first scene seed of each split. `validation` has training towns with scenes never trained on."""

_TIMES = (0.0, 2.6)
_PER_SCENE = 6 * len(_TIMES)
_MOST = 80  # objects stored per frame


@dataclass(frozen=True)
class Sample:
    """One frame of a split: image, truth and the camera it was taken with."""

    frame: Frame
    camera: CameraInfo


def render_split(
    split: str, start: int, stop: int, seed: int = 0, size: tuple[int, int] = INPUT_SIZE
) -> Iterator[Sample]:
    """Frames `start` to `stop` of a split at the network's input size, or another one of its aspect ratio.

    Frame n is the same whatever the range. Each scene gives six cameras, mounted with tolerances, at two times.
    """
    towns, first = SPLITS[split]
    width, height = size
    scene_number = -1
    renderers: list[Renderer | None] = [None] * 6
    for n in range(start, stop):
        number, view = divmod(n, _PER_SCENE)
        if number != scene_number:
            scene_number = number
            scene = Scene(first + seed * 10_000_000 + number, towns[number % len(towns)])
            cameras = surround_rig(width, height, np.random.default_rng([first, seed, number]))
            renderers = [None] * 6
        camera, step = view % 6, view // 6
        renderer = renderers[camera] or Renderer(scene, cameras[camera])
        renderers[camera] = renderer
        yield Sample(renderer.render(_TIMES[step]), cameras[camera])


class Cache:
    """Frames of one split, memory-mapped.

    Attributes:
        images: (N, 384, 640, 3) uint8 RGB.
        drivable: (N, 192, 320) uint8, 1 where drivable.
        objects: (N, 80, 8) float32: xyxy pixels, label, distance in metres, visible share, 1 if ignored;
            unused rows have label -1.
        focal: (N,) float32, focal length in pixels.
    """

    def __init__(self, folder: Path, frames: int) -> None:
        width, height = INPUT_SIZE
        self.folder, self.frames = folder, frames
        shapes = {
            "images": ((frames, height, width, 3), np.uint8),
            "drivable": ((frames, height // MASK_SCALE, width // MASK_SCALE), np.uint8),
            "objects": ((frames, _MOST, 8), np.float32),
            "focal": ((frames,), np.float32),
        }
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        for name, (shape, dtype) in shapes.items():
            path = folder / f"{name}.bin"
            mode = "r+" if path.exists() else "w+"
            arrays[name] = np.memmap(path, dtype, mode, shape=shape)  # type: ignore[call-overload]
        self.images: NDArray[np.uint8] = arrays["images"]
        self.drivable: NDArray[np.uint8] = arrays["drivable"]
        self.objects: NDArray[np.float32] = arrays["objects"]
        self.focal: NDArray[np.float32] = arrays["focal"]

    def put(self, n: int, sample: Sample) -> None:
        """Store a sample as frame n; the nearest objects are kept when there are more than fit."""
        truth = sample.frame.truth
        self.images[n] = sample.frame.image
        self.drivable[n] = truth.drivable
        self.focal[n] = sample.camera.fx
        rows = np.full((_MOST, 8), -1, np.float32)
        order = np.argsort(truth.distances)[:_MOST]
        rows[: len(order), :4] = truth.boxes[order]
        columns = np.stack([truth.labels, truth.distances, truth.visible, truth.ignored], 1)
        rows[: len(order), 4:] = columns[order]
        self.objects[n] = rows


def _fill(folder: Path, frames: int, split: str, seed: int, start: int, stop: int) -> int:
    cv2.setNumThreads(1)
    cache = Cache(folder, frames)
    for n, sample in zip(range(start, stop), render_split(split, start, stop, seed), strict=True):
        cache.put(n, sample)
    return stop - start


def open_cache(
    folder: Path,
    split: str,
    frames: int,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> Cache:
    """The cached frames of a split, rendered first where they are missing.

    Args:
        folder: Where the caches live; each split and size has its own folder.
        split: A key of SPLITS.
        frames: How many frames.
        seed: Another seed draws other scenes.
        workers: Processes that render.
        progress: Called with the number of frames that were just rendered.
    """
    home = folder / f"{split}-{frames}-{seed}"
    done = home / "complete.json"
    if not done.exists():
        Cache(home, frames)
        chunk = _PER_SCENE * 4
        jobs = [(home, frames, split, seed, a, min(a + chunk, frames)) for a in range(0, frames, chunk)]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pending = [pool.apply_async(_fill, job) for job in jobs]
            for job in pending:
                progress(job.get())
        done.write_text(json.dumps({"split": split, "frames": frames, "seed": seed}) + "\n")
    return Cache(home, frames)
