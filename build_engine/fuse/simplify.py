"""Operators written in a roundabout way, as the plain ones that they are: what exporters make of chunks and stacks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from build_engine.fuse.cost import is_constant

_REDUCTIONS = {"ReduceMean": "Mean", "ReduceSum": "Sum"}


def simplify(model: ir.Model) -> None:
    """Rewrites, in the main graph and all bodies, what is known to be equal.

    1. SequenceAt of a SplitToSequence: an output of a Split, where positions and sizes are constants.
    2. ReduceSum or ReduceMean over the axis along which tensors were stacked: their Sum or Mean.
    """
    opset = model.opset_imports.get("", 1)
    for graph in model.graphs():
        for node in list(graph):
            if node.domain not in ("", "ai.onnx"):
                continue
            if node.op_type == "SplitToSequence":
                _split(graph, node, opset)
            elif node.op_type in _REDUCTIONS:
                _reduced_stack(graph, node, opset)


def _split(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    """Case 1; the axis keeps its place (``keepdims``) and every reader is a SequenceAt."""
    source, readers = node.inputs[0], [use.node for use in node.outputs[0].uses()]
    if source is None or source.shape is None or node.outputs[0].is_graph_output():
        return
    axis = _integer(node, "axis", 0) % len(source.shape)
    sizes = _chunk_sizes(node, source.shape[axis])
    picks = [_constant(reader.inputs[1]) if reader.op_type == "SequenceAt" else None for reader in readers]
    if sizes is None or any(pick is None or pick.size != 1 for pick in picks):
        return
    attributes = [ir.AttrInt64("axis", axis)]
    inputs = [source]
    if opset < 13:
        attributes.append(ir.AttrInt64s("split", sizes))
    else:
        inputs.append(_initializer(graph, f"{node.outputs[0].name}.sizes", sizes))
    split = ir.node(
        "Split",
        inputs,
        attributes={attribute.name: attribute for attribute in attributes},
        num_outputs=len(sizes),
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    for index, (output, size) in enumerate(zip(split.outputs, sizes, strict=True)):
        output.name, output.type = f"{node.outputs[0].name}.{index}", source.type
        output.shape = ir.Shape([size if at == axis else dim for at, dim in enumerate(source.shape)])
    graph.insert_before(node, split)
    for reader, pick in zip(readers, picks, strict=True):
        _stand_in(reader, split.outputs[int(np.asarray(pick).reshape(-1)[0]) % len(sizes)])


def _chunk_sizes(node: ir.Node, whole: int | ir.SymbolicDim) -> list[int] | None:
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None:
        return [1] * whole if isinstance(whole, int) and _integer(node, "keepdims", 1) else None
    split = _constant(given)
    if split is None:
        return None
    if split.ndim:
        return [int(size) for size in split]
    chunk = int(split)
    if not isinstance(whole, int) or chunk < 1:
        return None
    return [min(chunk, whole - start) for start in range(0, whole, chunk)]


def _reduced_stack(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    """Case 2; of one axis, along which every part of a Concat has size 1.

    Without ``keepdims`` every part must be an Unsqueeze along that axis, as a stack is written.
    """
    stacked = node.inputs[0]
    concat = None if stacked is None else stacked.producer()
    if concat is None or concat.op_type != "Concat" or stacked is None or stacked.shape is None:
        return
    rank = len(stacked.shape)
    axes = _axes(node, opset >= (13 if node.op_type == "ReduceSum" else 18))
    axis = _integer(concat, "axis", 0) % rank
    if axes is None or [at % rank for at in axes] != [axis]:
        return
    parts = list(concat.inputs)
    if any(part is None or part.shape is None or part.shape[axis] != 1 for part in parts):
        return
    if not _integer(node, "keepdims", 1):
        makers = [None if part is None else part.producer() for part in parts]
        if any(
            maker is None
            or maker.op_type != "Unsqueeze"
            or [at % rank for at in _axes(maker, opset >= 13) or ()] != [axis]
            for maker in makers
        ):
            return
        parts = [maker.inputs[0] for maker in makers if maker is not None]
    total = ir.node(_REDUCTIONS[node.op_type], parts, name=node.name, metadata_props=dict(node.metadata_props))
    total.outputs[0].name = f"{node.outputs[0].name}.total"
    total.outputs[0].type, total.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    graph.insert_before(node, total)
    _stand_in(node, total.outputs[0])


def _stand_in(old: ir.Node, value: ir.Value) -> None:
    """Gives a node's readers to another tensor; an output of the graph keeps its name through an Identity."""
    output = old.outputs[0]
    if output.is_graph_output():
        old.graph.insert_before(old, copy := ir.node("Identity", [value], name=old.name))  # type: ignore[union-attr]
        name, copy.outputs[0].type, copy.outputs[0].shape = output.name, output.type, output.shape
        output.replace_all_uses_with(copy.outputs[0], replace_graph_outputs=True)
        output.name, copy.outputs[0].name = f"{name}.before", name
    else:
        output.replace_all_uses_with(value)


def _axes(node: ir.Node, as_input: bool) -> list[int] | None:
    """The axes a node names, None where they are not constant."""
    if not as_input:
        attribute = node.attributes.get("axes")
        return None if attribute is None else [int(at) for at in attribute.as_ints()]
    given = _constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if given is None else [int(at) for at in given.reshape(-1)]


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return value.const_value.numpy() if is_constant(value) and value is not None and value.const_value else None


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _initializer(graph: ir.Graph, name: str, values: list[int]) -> ir.Value:
    value = ir.Value(
        name=name,
        const_value=ir.tensor(values, dtype=ir.DataType.INT64, name=name),
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([len(values)]),
    )
    graph.register_initializer(value)
    return value
