"""An `.onnx` file, external data included, checked and with a batch dimension that has a name."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference, version_converter

from build_engine.errors import BuildError
from build_engine.graph import bodies, dimensions, feeds, opset_of
from build_engine.load.batch import fill_outputs, name_batch
from build_engine.load.free import name_inputs, name_outputs
from build_engine.load.shapes import InputShape
from engine.manifest import FreeDimension

OLDEST_OPSET = 13
"""Quantization per channel (QuantizeLinear with an axis) exists from here on; older files are raised."""


def load_onnx(
    path: Path,
    shapes: Sequence[InputShape],
    opset: int | None,
    free: Mapping[str, FreeDimension] = MappingProxyType({}),
) -> tuple[onnx.ModelProto, str]:
    """Read a graph, with its digest.

    Args:
        path: The file. Weights in external files beside it are read too.
        shapes: Sizes for inputs whose own are free; the first dimension stays free where it was.
        opset: Operator set to convert to; None keeps the file's.
        free: Dimensions besides the batch that are to stay free.

    Returns:
        The graph, every dimension of its inputs and outputs with a size or a name, and the SHA-256 of its content with
        the external data inside.

    Raises:
        BuildError: The file is missing, corrupt or no valid graph, or its external data is missing.
    """
    if not path.is_file():
        raise BuildError(f"no model at {path}", remedy="check the path")
    try:
        model = onnx.load(path)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise no_onnx_file(path, error) from None
    except (OSError, onnx.checker.ValidationError) as error:
        raise BuildError(
            f"{path}: the weights that lie outside the file cannot be read: {error}",
            remedy="copy the external data beside the .onnx file, under the name it was exported with",
        ) from None
    _check(model, path)
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    wanted = opset or max(opset_of(model), OLDEST_OPSET)
    if wanted != opset_of(model):
        model = _convert(model, wanted, path)
    fix_shapes(model, shapes)
    name_batch(model, free)
    name_inputs(model)
    model = _inferred(model, path)
    fill_outputs(model, {name: dimension.usual for name, dimension in free.items()})
    name_outputs(model)
    return model, digest


def _check(model: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise BuildError(
            f"{path} is no valid ONNX graph: {str(error).strip()[:500]}",
            remedy="copy it again, or export the model again; onnx.checker.check_model(path) says the same",
        ) from None
    if not feeds(model) or not model.graph.output:
        raise BuildError(f"{path} has no input or no output", remedy="export a model that takes and gives tensors")


def _inferred(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model with the shapes of everything.

    Exporters write shapes into the bodies of loops and conditionals that contradict each other. A runtime passes over
    that, and so does this: they are worked out again.
    """
    infer = functools.partial(shape_inference.infer_shapes, check_type=True, strict_mode=True, data_prop=True)
    try:
        return infer(model)
    except shape_inference.InferenceError as error:
        forgetful = onnx.ModelProto()
        forgetful.CopyFrom(model)
        for body in bodies(forgetful.graph):
            del body.value_info[:]
            for value in body.output:
                value.type.tensor_type.ClearField("shape")
        try:
            return infer(forgetful)
        except shape_inference.InferenceError:
            raise BuildError(f"{path}: shapes do not fit: {error}", remedy="check --input-shape") from None


def _convert(model: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise BuildError(
            f"{path} has opset {opset_of(model)} and cannot be converted to {opset}: {str(error)[:300]}",
            remedy=f"export it again with opset {opset}",
        ) from None


def no_onnx_file(path: Path, error: Exception) -> BuildError:
    """What to say about a file that cannot be parsed."""
    return BuildError(f"{path} is no ONNX file: {error}", remedy="copy it again, or export the model again")


def fix_shapes(model: onnx.ModelProto, shapes: Sequence[InputShape]) -> None:
    """Give free dimensions of a model's inputs a size, the first one apart.

    Raises:
        BuildError: An input is not there, or has other sizes.
    """
    values = {value.name: value for value in feeds(model)}
    for shape in shapes:
        if shape.name is None and len(values) > 1:
            raise BuildError(
                f"--input-shape without a name, but the model has inputs {', '.join(values)}",
                remedy=f"name it: --input-shape {next(iter(values))}={','.join(map(str, shape.sizes))}",
            )
        name = shape.name or next(iter(values))
        if name not in values:
            raise BuildError(f"the model has no input {name!r}", remedy=f"its inputs are {', '.join(values)}")
        dims = values[name].type.tensor_type.shape.dim
        old = dimensions(values[name])
        clash = [
            size
            for size, known in zip(shape.sizes[1:], old[1:], strict=False)
            if known not in (size, "") and isinstance(known, int)
        ]
        if len(dims) != len(shape.sizes) or clash:
            raise BuildError(
                f"--input-shape gives {name!r} {list(shape.sizes)}, the model has {list(old)}",
                remedy="only free dimensions can be given a size",
            )
        for dim, size in list(zip(dims, shape.sizes, strict=True))[1:]:
            dim.dim_value = size
