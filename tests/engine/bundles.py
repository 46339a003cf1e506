"""Bundles of those networks, written as `build_engine` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from engine.bundle import Bundle, BundleWriter, ReferenceCase, pack_reference
from engine.manifest import GraphEntry, Manifest, PlanEntry, Preprocessing, Provenance
from engine.tensors import TensorSpec
from tests.engine.graphs import HEIGHT, WIDTH, camera_network

IMAGES = TensorSpec(name="images", dtype="uint8", shape=("batch", HEIGHT, WIDTH, 3))
FEATURES = TensorSpec(name="features", dtype="float32", shape=("batch", 8, HEIGHT // 2, WIDTH // 2))
PROVENANCE = Provenance(
    source="tests.engine.graphs:camera_network",
    source_sha256="0" * 64,
    opset=17,
    ir_version=9,
    tools={"onnx": "1.19"},
)
REPORTS = {"report.json": b'{"milliseconds": 3.5}\n', "report.html": b"<!doctype html><title>report</title>\n"}


def frames(count: int = 2, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def reference_case(graph: bytes, count: int = 2) -> ReferenceCase:
    images = frames(count)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return ReferenceCase("reference/0.npz", {"images": images}, {"features": session.run(None, {"images": images})[0]})


def write_bundle(
    path: Path,
    *,
    graph: bytes | None = None,
    cases: tuple[ReferenceCase, ...] | None = None,
    targets: tuple[Any, ...] = ("cpu", "rtx"),
    plans: dict[str, tuple[PlanEntry, bytes]] | None = None,
    **changes: Any,
) -> Bundle:
    """A camera bundle at `path`; `changes` replace fields of its manifest."""
    graph = graph or camera_network()
    cases = (reference_case(graph),) if cases is None else cases
    writer = BundleWriter()
    writer.add("graphs/float.onnx", graph)
    for case in cases:
        writer.add(case.name, pack_reference(case))
    for entry, data in (plans or {}).values():
        writer.add(entry.path, data)
    fields: dict[str, Any] = {
        "name": "camera",
        "version": "1.0",
        "inputs": (IMAGES,),
        "outputs": (FEATURES,),
        "max_batch": 4,
        "preprocessing": Preprocessing(input="images", color="rgb", width=WIDTH, height=HEIGHT),
        "graphs": {"float": GraphEntry(path="graphs/float.onnx", precision="fp32", targets=targets)},
        "plans": tuple(entry for entry, _ in (plans or {}).values()),
        "reference": tuple(case.name for case in cases),
        "files": writer.entries(),
        "provenance": PROVENANCE,
    }
    writer.write(path, Manifest(**(fields | changes)), REPORTS)
    return Bundle.open(path)
