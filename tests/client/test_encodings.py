"""The reference model sees the same objects in a picture, whatever encoding the picture travels in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

import client
from client.frames import ENCODINGS, Encoding
from demo.serving import Serving
from surround.source import open_source

WIDTH, HEIGHT = 1280, 768
OPTICS = client.Intrinsics(1000.0, 1000.0, WIDTH / 2, HEIGHT / 2)
SURE = 0.6
"""Detections of a lower score come and go with a grey level."""
Seen = list[client.Detection]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("reference")
    command = [
        sys.executable, "-m", "build_engine", "build", "surround.model:deployed",
        "--weights", "surround/weights/surround.safetensors", "--input-shape", "1,3,384,640", "--mean", "116,118,122",
        "--std", "58,58,60", "--color", "rgb", "--postprocess", "surround/postprocessing.json",
        "--latency-seconds", "0", "-o", str(folder / "bundle"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with Serving(folder / "bundle", folder / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Six cameras' views of one street, at twice the size of the network input."""
    _, views = next(iter(open_source("seed=3").frames()))
    return [cv2.resize(view, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for view in views.values()]


async def seen(serving: Serving, encoding: Encoding, pictures: list[np.ndarray]) -> list[Seen]:
    cameras = [
        client.Camera(f"c{number}", WIDTH, HEIGHT, encoding, intrinsics=OPTICS) for number in range(len(pictures))
    ]
    found: dict[str, Seen] = {}
    async with client.connect(serving.address) as server, server.stream(cameras, policy="replay") as stream:
        for camera, picture in zip(cameras, pictures, strict=True):
            matrix = "bt601" if encoding in ("nv12", "yuyv") else None
            await stream.send(client.Frame(camera.id, client.encode(picture, encoding), color_matrix=matrix))  # type: ignore[arg-type]
        await stream.finish()
        async for result in stream:
            assert (result.status, result.reason) == ("ok", "")
            found[result.camera_id] = list(result.detections)
    return [found[camera.id] for camera in cameras]


def overlap(one: client.Detection, other: client.Detection) -> float:
    """Intersection over union."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (one, other)]
    return shared / (sum(areas) - shared)


async def test_the_same_objects_are_seen_in_every_encoding(serving: Serving, pictures: list[np.ndarray]) -> None:
    wanted = await seen(serving, "rgb8", pictures)
    sure = [[detection for detection in view if detection.score >= SURE] for view in wanted]
    assert sum(map(len, sure)) >= 4
    for encoding in ENCODINGS:
        for view, expected in zip(await seen(serving, encoding, pictures), sure, strict=True):
            for detection in expected:
                match = max(view, key=lambda other: overlap(other, detection), default=None)
                assert match is not None, (encoding, detection)
                assert overlap(match, detection) > 0.8, (encoding, detection, match)
                if encoding.startswith("gray"):
                    continue  # no colour, less sure
                assert match.label == detection.label, (encoding, detection, match)
                assert match.score == pytest.approx(detection.score, abs=0.08), encoding
                assert match.distance_m == pytest.approx(detection.distance_m, rel=0.08), encoding
