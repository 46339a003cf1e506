"""What the other steps ask of an ONNX graph: its names, its tensors at the boundary, its bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from build_engine.errors import BuildError
from engine.tensors import DType, TensorSpec

Tensors = Mapping[str, npt.NDArray[Any]]
"""Arrays by tensor name, batch first."""

BATCH = "batch"
SHAPES_VALUES = 1024
"""Initializers of at most this many values may say what a shape is; shape inference reads no others."""


def feeds(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller has to give: those that no initializer fills."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Initializers by name, as arrays."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def with_shapes(model: onnx.ModelProto, *, check_type: bool = False) -> onnx.ModelProto:
    """A copy with inferred shapes, as `onnx.shape_inference` infers them; that copies weights four times, this once."""
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.CopyFrom(onnx.GraphProto(name=model.graph.name, node=model.graph.node, input=model.graph.input))
    bare.graph.output.extend(model.graph.output)
    bare.graph.value_info.extend(model.graph.value_info)
    bare.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for tensor in model.graph.initializer:
        small = math.prod(tensor.dims) <= SHAPES_VALUES
        header = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        bare.graph.initializer.append(tensor if small else header)
    graph = onnx.shape_inference.infer_shapes(bare, check_type=check_type).graph
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    del fresh.graph.node[:], fresh.graph.output[:], fresh.graph.value_info[:]
    fresh.graph.node.extend(graph.node)
    fresh.graph.output.extend(graph.output)
    fresh.graph.value_info.extend(graph.value_info)
    return fresh


def bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The bodies of a graph's loops and conditionals, and those in them."""
    for node in graph.node:
        for attribute in node.attribute:
            held = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            for body in held:
                yield body
                yield from bodies(body)


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads: its inputs, then whatever the bodies of an `If` or a `Loop` read, their own included."""
    bodies = [body for attribute in node.attribute for body in (attribute.g, *attribute.graphs)]
    inside = [name for body in bodies for part in body.node for name in reads(part)]
    return [*node.input, *inside, *(value.name for body in bodies for value in body.output)]


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Nodes that read a tensor, by the tensor's name."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in reads(node):
            readers.setdefault(name, []).append(node)
    return readers


def dimensions(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Sizes and names of a tensor's dimensions; an unknown one is `""`."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    )


def element_type(value: onnx.ValueInfoProto) -> str:
    """Numpy name of a tensor's element type."""
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def tensor_specs(values: list[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """Boundary tensors in the bundle's words.

    Raises:
        BuildError: A tensor's type cannot cross the boundary of an engine, or a size is unknown.
    """
    specs = []
    for value in values:
        dtype = element_type(value)
        if dtype not in get_args(DType):
            raise BuildError(
                f"tensor {value.name!r} has element type {dtype}, which cannot cross an engine's boundary",
                remedy=f"cast it inside the model to one of: {', '.join(get_args(DType))}",
            )
        sizes = dimensions(value)
        if "" in sizes:
            raise BuildError(
                f"tensor {value.name!r} has shape {list(sizes)}: a dimension is neither a size nor a name",
                remedy=f"give its shape: --input-shape {value.name}=1,3,384,640",
            )
        specs.append(TensorSpec.model_validate({"name": value.name, "dtype": dtype, "shape": sizes}))
    return tuple(specs)


def random_inputs(
    specs: tuple[TensorSpec, ...], batch: int, seed: int, sizes: Mapping[str, int] = MappingProxyType({})
) -> dict[str, npt.NDArray[Any]]:
    """Inputs that exercise every branch: bytes over their whole range, floats of unit variance.

    Args:
        specs: The inputs of a model.
        batch: Size of the batch dimension, where there is one.
        seed: Same seed, same arrays.
        sizes: Of the dimensions besides the batch that are free.

    Raises:
        BuildError: Another dimension is chosen at run time.
    """
    generator = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for spec in specs:
        try:
            shape = spec.concrete(batch, sizes)
        except ValueError as error:
            raise BuildError(str(error), remedy=f"fix its size: --input-shape {spec.name}=1,3,384,640") from None
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays[spec.name] = generator.standard_normal(shape).astype(dtype)
        elif dtype == np.uint8:
            arrays[spec.name] = generator.integers(0, 256, shape, dtype)
        else:
            arrays[spec.name] = generator.integers(0, 2, shape).astype(dtype)  # indices stay valid
    return arrays


def serialize(model: onnx.ModelProto) -> bytes:
    """Bytes of a graph without what an exporter noted about its own machine; same graph, same bytes.

    The IR version is the lowest that the opsets allow: runtimes on vehicles read older ones than today's
    exporters write.
    """
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    clean.ir_version = onnx.helper.find_min_ir_version_for(list(clean.opset_import), ignore_unknown=True)
    clean.producer_name = "monocoque"
    clean.producer_version = ""
    clean.doc_string = ""
    del clean.metadata_props[:]
    for holder in _annotated(clean.graph):
        holder.doc_string = ""
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
    return clean.SerializeToString(deterministic=True)


def _annotated(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph
    yield from graph.node
    yield from graph.initializer
    yield from graph.input
    yield from graph.output
    yield from graph.value_info
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _annotated(attribute.g)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
