from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from build_engine.fuse.cost import is_constant

# Random, or meant to be read by a later step: a quantized weight stays quantized.
_LEFT_ALONE = frozenset(
    {
        "Bernoulli",
        "DequantizeLinear",
        "Multinomial",
        "QuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_LARGEST = 1 << 24  # elements; a constant that is computed to be larger than that was meant to stay computed


def fold_constants(model: ir.Model) -> bool:
    """Replaces nodes whose outputs do not depend on the inputs by initializers; whether it found any.

    1. All inputs are constant, the operator is deterministic, of the standard domain and has no subgraph.
    2. Or the node asks for no more than is known: Shape or Size of a tensor of static shape, Gather of known
       sizes from a Shape, and CastLike, where only the type of the second input matters.
    """
    return any([_fold_graph(graph, model.opset_imports.get("", 1)) for graph in model.graphs()])


def _fold_graph(graph: ir.Graph, opset: int) -> bool:
    changed = False
    for node in list(graph):
        outputs = _evaluate(node, opset)
        if outputs is None:
            continue
        for value, array in zip(node.outputs, outputs, strict=False):
            constant = ir.Value(
                name=f"{value.name}_folded",
                const_value=ir.tensor(array, name=f"{value.name}_folded"),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
            )
            if value.is_graph_output():
                continue
            graph.register_initializer(constant)
            value.replace_all_uses_with(constant)
            changed = True
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    return changed


def _evaluate(node: ir.Node, opset: int) -> list[np.ndarray] | None:
    if node.domain not in ("", "ai.onnx") or node.op_type in _LEFT_ALONE:
        return None
    if not any(output.uses() for output in node.outputs):
        return None
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return None
    source = node.inputs[0] if node.inputs else None
    if node.op_type in ("Shape", "Size") and source is not None and source.shape is not None:
        return _known_shape(node, source.shape)
    inputs = list(node.inputs)
    if node.op_type == "Gather":
        picked = _known_sizes(node)
        if picked is not None:
            return [picked]
    if node.op_type == "CastLike" and source is not None and source.const_value is not None:
        like = inputs[1].dtype if inputs[1] is not None else None
        return None if like is None else [source.const_value.numpy().astype(like.numpy())]
    if not inputs or not all(value is None or is_constant(value) for value in inputs):
        return None
    shape = node.outputs[0].shape
    if shape is not None and shape.is_static() and math.prod(shape.numpy()) > _LARGEST:
        return None
    return _run(node, opset)


def _known_shape(node: ir.Node, shape: ir.Shape) -> list[np.ndarray] | None:
    start, stop = node.attributes.get("start"), node.attributes.get("end")
    dims = shape[slice(None if start is None else start.as_int(), None if stop is None else stop.as_int())]
    if not all(isinstance(dim, int) for dim in dims):
        return None
    sizes = np.array([int(dim) for dim in dims if isinstance(dim, int)], dtype=np.int64)
    return [sizes if node.op_type == "Shape" else np.array(math.prod(sizes.tolist()), dtype=np.int64)]


def _known_sizes(node: ir.Node) -> np.ndarray | None:
    """Sizes that a Gather picks from the shape of a tensor that has others open."""
    shape_of = node.inputs[0].producer() if node.inputs[0] is not None else None
    indices = node.inputs[1].const_value if node.inputs[1] is not None else None
    if shape_of is None or shape_of.op_type != "Shape" or indices is None or shape_of.inputs[0] is None:
        return None
    start = shape_of.attributes.get("start")
    if shape_of.inputs[0].shape is None or "end" in shape_of.attributes or (start and start.as_int()):
        return None
    dims = list(shape_of.inputs[0].shape)
    picked = [dims[int(i)] for i in indices.numpy().reshape(-1)]
    if not all(isinstance(dim, int) for dim in picked):
        return None
    return np.array([int(str(dim)) for dim in picked], dtype=np.int64).reshape(indices.numpy().shape)


def _run(node: ir.Node, opset: int) -> list[np.ndarray] | None:
    """The node's outputs by the ONNX reference implementation; None where it has none."""
    feeds = {
        value.name: value.const_value.numpy()
        for value in node.inputs
        if value is not None and value.name is not None and value.const_value is not None
    }
    proto = ir.serde.serialize_node(node)
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in feeds],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in proto.output if name],
    )
    single = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        results = ReferenceEvaluator(single).run(None, feeds)
    except Exception:  # the reference implementation lacks the operator or this case of it
        return None
    if len(results) != len(node.outputs) or not all(isinstance(result, np.ndarray) for result in results):
        return None
    return list(results)
