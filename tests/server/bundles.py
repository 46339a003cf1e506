"""Small real bundles: an ONNX graph that sees one object per bright quarter of the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import BundleWriter, ReferenceCase, pack_reference
from engine.manifest import (
    DetectionPostprocessing,
    GraphEntry,
    Manifest,
    Postprocessing,
    Preprocessing,
    Provenance,
)
from engine.tensors import TensorSpec

WIDTH, HEIGHT = 32, 16
LABELS = ("dark", "bright")


def detector_onnx() -> bytes:
    """`images` uint8 (N, 16, 32, 3) -> scores (N, 2), classes (N, 2), boxes (N, 2, 4), distances (N, 2), mask.

    The first score is the mean of the red channel over 255, the second that of blue; boxes and distances are fixed.
    """
    constant = {
        "axes": np.array([1, 2], np.int64),
        "scale": np.array(255, np.float32),
        "order": np.array([0, 2], np.int64),
        "classes_row": np.array([[0, 1]], np.int64),
        "boxes_row": np.array([[[0, 0, 16, 16], [8, 4, 24, 12]]], np.float32),
        "distance_row": np.array([[10, 20]], np.float32),
        "zero": np.array(0, np.float32),
        "mask_axes": np.array([3], np.int64),
        "perm": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "scale"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["scores"], axis=1),
        helper.make_node("Mul", ["scores", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["nothing_int"], to=TensorProto.INT64),
        helper.make_node("Add", ["nothing_int", "classes_row"], ["classes"]),
        helper.make_node("Add", ["nothing", "distance_row"], ["distances"]),
        helper.make_node("Unsqueeze", ["nothing", "box_axis"], ["nothing_box"]),
        helper.make_node("Add", ["nothing_box", "boxes_row"], ["boxes"]),
        helper.make_node("ReduceMean", ["unit", "mask_axes"], ["luma"], keepdims=0),
        helper.make_node("Unsqueeze", ["luma", "perm"], ["drivable"]),
    ]
    constant["box_axis"] = np.array([2], np.int64)
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, ["batch", 2]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 2, 4]),
            helper.make_tensor_value_info("distances", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("drivable", TensorProto.FLOAT, ["batch", 1, HEIGHT, WIDTH]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constant.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_bundle(
    path: Path,
    *,
    postprocessing: Postprocessing | None = None,
    camera: bool = True,
    color: str = "rgb",
    max_batch: int = 8,
    reference: ReferenceCase | None = None,
    name: str = "quarters",
    version: str = "1.0",
    labels: tuple[str, ...] = LABELS,
) -> Path:
    """Write a bundle around the detector.

    Args:
        path: Where.
        postprocessing: None means detections.
        camera: Whether it takes camera frames.
        color: Channel order.
        max_batch: Largest batch.
        reference: Input and output that the engine is compared with.
        name: The bundle's name.
        version: The bundle's version.
        labels: Of its detections.
    """
    graph = detector_onnx()
    writer = BundleWriter()
    writer.add("graphs/float.onnx", graph)
    if reference is not None:
        writer.add(reference.name, pack_reference(reference))
    detections = DetectionPostprocessing(
        labels=labels,
        scores="scores",
        classes="classes",
        boxes="boxes",
        distances="distances",
        reference_focal_px=32.0,
        drivable="drivable",
        score_threshold=0.3,
    )
    manifest = Manifest(
        name=name,
        version=version,
        inputs=(TensorSpec(name="images", dtype="uint8", shape=("batch", HEIGHT, WIDTH, 3)),),
        outputs=(
            TensorSpec(name="scores", dtype="float32", shape=("batch", 2)),
            TensorSpec(name="classes", dtype="int64", shape=("batch", 2)),
            TensorSpec(name="boxes", dtype="float32", shape=("batch", 2, 4)),
            TensorSpec(name="distances", dtype="float32", shape=("batch", 2)),
            TensorSpec(name="drivable", dtype="float32", shape=("batch", 1, HEIGHT, WIDTH)),
        ),
        max_batch=max_batch,
        preprocessing=Preprocessing(input="images", color=color, width=WIDTH, height=HEIGHT) if camera else None,
        postprocessing=postprocessing or detections,
        graphs={"float": GraphEntry(path="graphs/float.onnx", precision="fp32", targets=("cpu",))},
        reference=() if reference is None else (reference.name,),
        files=writer.entries(),
        provenance=Provenance(source="bundles.py", source_sha256="0" * 64, opset=18, ir_version=10, tools={}),
    )
    writer.write(path, manifest, {"report.json": b"{}", "report.html": b"<p>none</p>"})
    return path
