"""Frames per second of the renderer on one core: `python benchmarks/render.py`."""

import time

import cv2

from surround.render import Renderer
from surround.rig import surround_rig
from surround.scene import Scene
from surround.towns import TOWNS


def main() -> None:
    """Print a table: town, time to build a scene, frames per second."""
    cv2.setNumThreads(1)
    print("640x384, six cameras, image and ground truth, one core")
    rates = []
    for town in TOWNS.values():
        start = time.perf_counter()
        scene = Scene(3, town)
        built = time.perf_counter()
        renderers = [Renderer(scene, camera) for camera in surround_rig()]
        ready = time.perf_counter()
        steps = 20
        for step in range(steps):
            for renderer in renderers:
                renderer.render(step / 30)
        spent = time.perf_counter() - ready
        rates.append(steps * len(renderers) / spent)
        print(f"{town.name:12} scene {built - start:5.2f} s  cameras {ready - built:5.2f} s  {rates[-1]:6.1f} frames/s")
    print(f"slowest {min(rates):.1f} frames/s, mean {sum(rates) / len(rates):.1f}")


if __name__ == "__main__":
    main()
