from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.camera_input import CameraInput, subtract_in_rows, takes_frames
from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.graph import feeds, serialize, tensor_specs
from build_engine.quantize.core import with_node_names
from build_engine.session import Session
from engine.tensorrt.plan import PlanOptions, build_plan
from tests.build_engine.conftest import CAMERA
from tests.build_engine.networks import HEIGHT, WIDTH

FRAMES = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)


def normalized(camera: CameraInput) -> np.ndarray:
    image = (FRAMES.astype(np.float64) - camera.mean) / camera.std
    return image.transpose(0, 3, 1, 2).astype(np.float32)


def test_frames_are_normalized_in_the_graph(classifier: onnx.ModelProto) -> None:
    camera = takes_frames(classifier, CAMERA)
    assert tensor_specs(feeds(camera))[0].model_dump() == {
        "name": "image",
        "dtype": "uint8",
        "shape": ("batch", HEIGHT, WIDTH, 3),
    }
    wanted = Session(classifier).run({"image": normalized(CAMERA)})["output"]
    assert np.allclose(Session(camera).run({"image": FRAMES})["output"], wanted, atol=1e-4)


def test_the_scale_disappears_into_the_first_convolution_and_the_mean_does_not(classifier: onnx.ModelProto) -> None:
    fused = fuse(takes_frames(classifier, CAMERA)).model
    kinds = [node.op_type for node in fused.graph.node][:4]
    assert kinds in (["Cast", "Transpose", kind, "Conv"] for kind in ("Sub", "Add"))


def test_no_mean_and_no_scale_need_no_node(classifier: onnx.ModelProto) -> None:
    plain = takes_frames(classifier, CameraInput("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert [node.op_type for node in plain.graph.node][:3] == ["Cast", "Transpose", "Conv"]
    wanted = Session(classifier).run({"image": FRAMES.transpose(0, 3, 1, 2).astype(np.float32)})["output"]
    assert np.allclose(Session(plain).run({"image": FRAMES})["output"], wanted, rtol=1e-4, atol=1e-3)


def test_rows_of_the_mean_give_the_same_numbers(fused_detector: onnx.ModelProto) -> None:
    rows = with_node_names(subtract_in_rows(fused_detector))
    assert [node.op_type for node in rows.graph.node][:3] == ["Cast", "Sub", "Transpose"]
    before, after = Session(fused_detector).run({"image": FRAMES}), Session(rows).run({"image": FRAMES})
    assert all(np.array_equal(before[name], after[name]) for name in before)
    onnx.checker.check_model(rows)


def test_rows_of_the_mean_are_the_same_kernels_for_tensorrt(fused_detector: onnx.ModelProto) -> None:
    before = build_plan(serialize(fused_detector), "rtx", PlanOptions(max_batch=1))
    after = build_plan(serialize(subtract_in_rows(fused_detector)), "rtx", PlanOptions(max_batch=1))
    assert len(after.layers) <= len(before.layers)
    assert after.activation_bytes == before.activation_bytes


def test_a_model_of_tensors_has_no_mean_to_move(classifier: onnx.ModelProto) -> None:
    assert subtract_in_rows(classifier) is classifier


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        (("rgb", (1.0,), (1.0, 1.0, 1.0)), "have 3 channels; mean has 1 values"),
        (("gray", (1.0,), (0.0,)), "standard deviation of 0"),
    ],
)
def test_what_cannot_be_is_refused(camera: tuple, says: str) -> None:
    with pytest.raises(BuildError, match=says):
        CameraInput(*camera)


def test_a_network_that_takes_no_such_image_is_refused_with_what_it_takes(classifier: onnx.ModelProto) -> None:
    with pytest.raises(BuildError, match=r"the model takes image\['batch', 3, 64, 96\]"):
        takes_frames(classifier, CameraInput("gray", (128.0,), (64.0,)))


def test_a_mean_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(BuildError, match=r"mean \(nan, 1.0, 1.0\) .* not all numbers"):
        CameraInput("rgb", (float("nan"), 1.0, 1.0), (1.0, 1.0, 1.0))
