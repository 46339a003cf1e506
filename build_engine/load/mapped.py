"""An `.onnx` file whose weights stay where they are, for steps that look at one after the other."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from build_engine.errors import BuildError
from build_engine.graph import feeds
from build_engine.load.onnx_file import fix_shapes, no_onnx_file
from build_engine.load.shapes import InputShape
from build_engine.load.wire import without_weights


def map_onnx(path: Path, shapes: Sequence[InputShape] = ()) -> ir.Model:
    """Read a graph; its weights, inside or in files beside it, are mapped when they are looked at.

    Args:
        path: The file.
        shapes: Sizes for inputs whose own are free.

    Raises:
        BuildError: The file is missing, corrupt or no ONNX model, or weights are not where it says they are.
    """
    if not path.is_file():
        raise BuildError(f"no model at {path}", remedy="check the path")
    try:
        proto = _read(path)
    except (DecodeError, ValueError) as error:
        raise no_onnx_file(path, error) from None
    if not feeds(proto) or not proto.graph.output:
        raise BuildError(f"{path} has no input or no output", remedy="export a model that takes and gives tensors")
    fix_shapes(proto, shapes)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        raise no_onnx_file(path, error) from None
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _located(value.const_value, path)
    return model


def _read(path: Path) -> onnx.ModelProto:
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
        memoryview(pages) as data,
    ):
        return without_weights(data, path.name)


def _located(tensor: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    """The tensor with its file's full path, once that is known to hold it."""
    own = str(tensor.location) == path.name
    folder = path.resolve().parent
    file = (path if own else path.parent / tensor.location).resolve()
    if not own and not file.is_relative_to(folder):
        raise BuildError(
            f"{path}: weight {tensor.name!r} lies in {tensor.location}, outside the model's folder",
            remedy="copy the external data beside the .onnx file; a model may not read files elsewhere",
        )
    if not file.is_file():
        raise BuildError(
            f"{path}: weight {tensor.name!r} lies in {tensor.location}, which is not there",
            remedy="copy the external data beside the .onnx file, under the name it was exported with",
        )
    needed = math.ceil(tensor.size * tensor.dtype.itemsize)
    offset, length = tensor.offset or 0, tensor.length or needed
    if length != needed or offset + length > file.stat().st_size:
        raise BuildError(
            f"{path}: weight {tensor.name!r}, {tensor.dtype.name} {list(tensor.shape)}, takes {needed} bytes; "
            f"{length} are given to it at {offset} in {file.name}, which has {file.stat().st_size}",
            remedy="copy the model and its external data again, or export the model again",
        )
    return ir.ExternalTensor(str(file), offset, length, tensor.dtype, shape=tensor.shape, name=tensor.name, base_dir="")
