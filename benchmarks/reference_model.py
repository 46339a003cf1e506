"""The network that servers are compared with: the shape of a deployed RepVGG-A0, in INT8, with random weights.

Speed does not depend on what the weights are. Two bundles are made of it, both by `python -m build_engine`: one whose
input is the tensor `1x3x224x224` in FP32, as the peers take it, and one that takes camera frames of 224x224 (150 kB).

Shape: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, table 2 (A0).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 224
"""Rows and columns of the input."""
CLASSES = 1000
STAGES = ((1, 48), (2, 48), (4, 96), (14, 192), (1, 1280))
"""Layers and channels of each stage; the first layer of a stage has stride 2."""
CALIBRATION_FRAMES = 4
"""The weights mean nothing, so neither does their accuracy: few frames, soon built."""
CACHE = Path("out/benchmarks")


def repvgg_a0(seed: int = 0) -> onnx.ModelProto:
    """The network: `image` FP32 (batch, 3, 224, 224) to `logits` (batch, 1000)."""
    random = np.random.default_rng(seed)
    nodes, weights, last, channels = [], [], "image", 3
    for stage, (layers, width) in enumerate(STAGES):
        for layer in range(layers):
            name = f"stage{stage}_{layer}"
            kernel = random.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
            weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"{name}_weight"))
            weights.append(numpy_helper.from_array(np.full(width, 0.01, np.float32), f"{name}_bias"))
            inputs = [last, f"{name}_weight", f"{name}_bias"]
            stride = 2 if layer == 0 else 1
            nodes.append(helper.make_node("Conv", inputs, [name], name, strides=[stride] * 2, pads=[1] * 4))
            nodes.append(helper.make_node("Relu", [name], [f"{name}_relu"]))
            last, channels = f"{name}_relu", width
    classifier = (random.standard_normal((CLASSES, channels)) / np.sqrt(channels)).astype(np.float32)
    weights.append(numpy_helper.from_array(classifier, "classifier"))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    nodes.append(helper.make_node("Gemm", ["features", "classifier"], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "repvgg_a0",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def tensor_bundle() -> Path:
    """The bundle that takes tensors; built the first time."""
    return _built("repvgg-a0-tensor", [])


def camera_bundle() -> Path:
    """The bundle that takes camera frames of 224x224; built the first time."""
    return _built("repvgg-a0-camera", ["--mean", "116,118,122", "--std", "58,58,60", "--color", "rgb"])


def graph_of(bundle: Path) -> Path:
    """The INT8 graph that a bundle serves on a CPU."""
    return bundle / "graphs" / "cpu-int8.onnx"


def _built(name: str, extra: list[str]) -> Path:
    bundle = CACHE / name
    if graph_of(bundle).exists():
        return bundle
    model, calibration = CACHE / "repvgg-a0.onnx", CACHE / f"{name}-calibration"
    calibration.mkdir(parents=True, exist_ok=True)
    onnx.save(repvgg_a0(), model)
    random = np.random.default_rng(1)
    for number in range(CALIBRATION_FRAMES):
        if extra:
            frame = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            cv2.imwrite(str(calibration / f"{number:03d}.png"), frame)
        else:
            sample = random.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
            np.savez(calibration / f"{number:03d}.npz", image=sample)
    print(f"building {bundle} …", flush=True)
    subprocess.run(
        [
            sys.executable, "-m", "build_engine", "build", str(model), "-o", str(bundle), "--name", name, *extra,
            "--precision", "int8", "--calibration-data", str(calibration), "--calibration-method", "max",
            "--max-batch", "8", "--latency-seconds", "0",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return bundle
