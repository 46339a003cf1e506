from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from build_engine.camera_input import CameraInput, takes_frames
from build_engine.fuse import fuse
from build_engine.graph import serialize
from build_engine.load import load_model, parse_source
from build_engine.load.shapes import InputShape
from build_engine.quantize.core import with_node_names
from tests.build_engine.networks import HEIGHT, WIDTH

SHAPE = InputShape(None, (1, 3, HEIGHT, WIDTH))
CAMERA = CameraInput("rgb", (116.0, 118.0, 122.0), (58.0, 58.0, 60.0))


def load(factory: str, *shapes: InputShape) -> onnx.ModelProto:
    return load_model(parse_source(f"tests.build_engine.networks:{factory}"), shapes=shapes or (SHAPE,)).model


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a search measures is kept in the user's cache, which tests leave alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def classifier() -> onnx.ModelProto:
    return load("classifier")


@pytest.fixture(scope="session")
def detector() -> onnx.ModelProto:
    return load("detector")


@pytest.fixture(scope="session")
def camera_detector(detector: onnx.ModelProto) -> onnx.ModelProto:
    """The detector with a camera's input, as trained."""
    return with_node_names(takes_frames(detector, CAMERA))


@pytest.fixture(scope="session")
def fused_detector(camera_detector: onnx.ModelProto) -> onnx.ModelProto:
    return with_node_names(onnx.shape_inference.infer_shapes(fuse(camera_detector).model))


@pytest.fixture(scope="session")
def classifier_file(classifier: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "classifier.onnx"
    path.write_bytes(serialize(classifier))
    return path


@pytest.fixture(scope="session")
def frames_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with soft backgrounds and hard edges, twice the network's size."""
    folder = tmp_path_factory.mktemp("frames")
    draw = np.random.default_rng(0)
    for number in range(32):
        image = cv2.resize(draw.integers(0, 256, (6, 9, 3), np.uint8), (2 * WIDTH, 2 * HEIGHT), interpolation=2)
        for _ in range(6):
            x, y, w, h = (int(v) for v in draw.integers((0, 0, 8, 8), (2 * WIDTH, 2 * HEIGHT, 60, 60)))
            cv2.rectangle(image, (x, y), (x + w, y + h), tuple(int(v) for v in draw.integers(0, 256, 3)), -1)
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
    return folder


@pytest.fixture(scope="session")
def postprocessing_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("postprocessing") / "detections.json"
    fields = {
        "labels": ["car", "truck", "cyclist", "pedestrian"],
        "scores": "scores",
        "classes": "classes",
        "boxes": "boxes",
        "score_threshold": 0.5,
    }
    path.write_text(json.dumps(fields))
    return path
