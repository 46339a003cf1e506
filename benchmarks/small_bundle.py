"""A bundle around a graph of a few nodes, for servers whose engine is not what is measured."""

from __future__ import annotations

from pathlib import Path

from engine.bundle import BundleWriter
from engine.manifest import GraphEntry, Manifest, Preprocessing, Provenance, TensorPostprocessing
from engine.tensors import TensorSpec


def write_bundle(
    path: Path, graph: bytes, taken: TensorSpec, given: TensorSpec, preprocessing: Preprocessing | None = None
) -> Path:
    """Write it, under its folder's name; returns the folder.

    Args:
        path: Where; must not exist.
        graph: Bytes of the ONNX file.
        taken: The engine's input.
        given: Its output.
        preprocessing: What becomes of frames; None for an engine that takes tensors.
    """
    writer = BundleWriter()
    writer.add("graphs/float.onnx", graph)
    manifest = Manifest(
        name=path.name,
        version="1",
        inputs=(taken,),
        outputs=(given,),
        max_batch=1,
        preprocessing=preprocessing,
        postprocessing=TensorPostprocessing(),
        graphs={"float": GraphEntry(path="graphs/float.onnx", precision="fp32", targets=("cpu",))},
        reference=(),
        files=writer.entries(),
        provenance=Provenance(source="benchmarks", source_sha256="0" * 64, opset=18, ir_version=10, tools={}),
    )
    writer.write(path, manifest, {"report.json": b"{}", "report.html": b"<p>none</p>"})
    return path
