"""The models of `exchanges.py` as bundles: the same inputs, outputs and arithmetic that Triton served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import BundleWriter
from engine.manifest import FreeDimension, GraphEntry, Manifest, Provenance
from engine.tensors import TensorSpec


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape})


def write_bundle(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    constants: Mapping[str, np.ndarray] | None = None,
    version: str = "1",
    max_batch: int = 1,
    smallest: int = 0,
    **largest: int,
) -> Path:
    """A bundle named like its folder; `largest` sizes of free dimensions besides the batch, all from `smallest` on."""

    def values(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
        types = {one.name: helper.np_dtype_to_tensor_dtype(np.dtype(one.dtype)) for one in specs}
        return [helper.make_tensor_value_info(one.name, types[one.name], list(one.shape)) for one in specs]

    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, path.name, values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    writer = BundleWriter()
    writer.add("graphs/float.onnx", model.SerializeToString())
    manifest = Manifest(
        name=path.name,
        version=version,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        max_batch=max_batch,
        dimensions={
            name: FreeDimension(smallest=smallest, usual=max(smallest, 1), largest=size)
            for name, size in largest.items()
        },
        graphs={"float": GraphEntry(path="graphs/float.onnx", precision="fp32", targets=("cpu",))},
        files=writer.entries(),
        provenance=Provenance(source="bundles.py", source_sha256="0" * 64, opset=18, ir_version=10, tools={}),
    )
    writer.write(path, manifest, {"report.json": b"{}", "report.html": b"<p>none</p>"})
    return path


def write_mixed(folder: Path) -> Path:
    return write_bundle(
        folder / "mixed",
        [
            helper.make_node("Add", ["a", "one"], ["sum"]),
            helper.make_node("Mul", ["b", "two"], ["twice"]),
        ],
        [spec("a", "float32", "batch", 3), spec("b", "int64", "batch", 2, 2)],
        [spec("sum", "float32", "batch", 3), spec("twice", "int64", "batch", 2, 2)],
        {"one": np.array(1, np.float32), "two": np.array(2, np.int64)},
        max_batch=4,
    )


def write_flat(folder: Path) -> Path:
    return write_bundle(
        folder / "flat",
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            helper.make_node("Not", ["flag"], ["not_flag"]),
            helper.make_node("Cast", ["u8"], ["wide"], to=TensorProto.INT32),
            helper.make_node("Mul", ["wide", "two"], ["double"]),
            helper.make_node("Cast", ["double"], ["u16"], to=TensorProto.UINT16),
        ],
        [spec("x", "float16", 4), spec("flag", "bool", 2), spec("u8", "uint8", 2)],
        [spec("y", "float16", 4), spec("not_flag", "bool", 2), spec("u16", "uint16", 2)],
        {"two": np.array(2, np.int32)},
    )


def write_scores(folder: Path, version: str = "1") -> Path:
    return write_bundle(
        folder / "scores",
        [helper.make_node("Identity", ["x"], ["probabilities"])],
        [spec("x", "float32", "batch", 5)],
        [spec("probabilities", "float32", "batch", 5)],
        version=version,
        max_batch=4,
    )


def write_scalars(folder: Path) -> Path:
    """`sum` () = `left` () + `right` (): the batch is not the only thing that may be missing."""
    return write_bundle(
        folder / "scalars",
        [helper.make_node("Add", ["left", "right"], ["sum"])],
        [spec("left", "float64"), spec("right", "float64")],
        [spec("sum", "float64")],
    )


def write_image(folder: Path, size: int = 1 << 20) -> Path:
    """`copy` = `image` + 0, as large as a frame; and `image`'s mean."""
    return write_bundle(
        folder / "image",
        [
            helper.make_node("Add", ["image", "zero"], ["copy"]),
            helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        ],
        [spec("image", "float32", size)],
        [spec("copy", "float32", size), spec("mean", "float32")],
        {"zero": np.array(0, np.float32)},
    )


def write_sequences(folder: Path, smallest: int = 0) -> Path:
    """`both` (N, length, 2) = `ids` and `mask` side by side; `total` (N) = the sum of `ids` where `mask` is not 0."""
    return write_bundle(
        folder / "sequences",
        [
            helper.make_node("Unsqueeze", ["ids", "last"], ["ids_column"]),
            helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
            helper.make_node("Concat", ["ids_column", "mask_column"], ["both"], axis=2),
            helper.make_node("Mul", ["ids", "mask"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "rows"], ["total"], keepdims=0),
        ],
        [spec("ids", "int64", "batch", "length"), spec("mask", "int64", "batch", "length")],
        [spec("both", "int64", "batch", "length", 2), spec("total", "int64", "batch")],
        {"last": np.array([2], np.int64), "rows": np.array([1], np.int64)},
        max_batch=4,
        smallest=smallest,
        length=16,
    )


def write_places(folder: Path, found: int = 8) -> Path:
    """`places` (1, found) = where `x` (size) is above 0: as many as there are."""
    return write_bundle(
        folder / "places",
        [helper.make_node("Greater", ["x", "zero"], ["above"]), helper.make_node("NonZero", ["above"], ["places"])],
        [spec("x", "float32", "size")],
        [spec("places", "int64", 1, "found")],
        {"zero": np.array(0, np.float32)},
        size=8,
        found=found,
    )


def write_repository(folder: Path) -> Path:
    """All of them side by side."""
    for write in (write_mixed, write_flat, write_scores, write_scalars, write_image, write_sequences, write_places):
        write(folder)
    return folder
