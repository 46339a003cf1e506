"""What treats every pixel alike goes in front of what only moves or repeats pixels, next to the convolution there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from build_engine.fuse.algebra import NotExact
from build_engine.fuse.cost import is_constant
from build_engine.fuse.rules.site import known_shape, per_channel

_REPEATING = frozenset({"edge", "reflect", "wrap"})
_LINEAR = frozenset({"Add", "BatchNormalization", "Conv", "ConvTranspose", "Div", "Mul", "Sub"})
Spread = Callable[[np.ndarray], np.ndarray]


def hoist(graph: ir.Graph) -> None:
    """Swaps an operator that moves pixels with the batch norm, scale, shift or 1x1 convolution after it.

    ``A P(x) + b = P(A' x + b')``:

    1. ``P`` is a DepthToSpace, a Resize of the image alone, or a Pad that repeats pixels: each of its pixels is one
       of ``x``, or an average with weights that sum to 1.
    2. What follows is per channel, or for the latter two a 1x1 convolution that makes no more channels than it
       reads. A DepthToSpace spreads each of its channels over several of ``x``.
    3. Nothing else reads what lies between, and ``x`` comes from a linear operator that it can merge with.
    """
    for node in list(graph):
        mover = node
        while True:
            swapped = _swapped(graph, mover)
            if swapped is None:
                break
            mover = swapped


def _swapped(graph: ir.Graph, mover: ir.Node) -> ir.Node | None:
    """The operator that moves pixels, now after what followed it; None where they stay."""
    source, moved = mover.inputs[0] if mover.inputs else None, mover.outputs[0]
    spread = _spread(mover)
    if spread is None or source is None or not _is_between(source) or not _is_between(moved):
        return None
    producer, (use,) = source.producer(), moved.uses()
    if producer is None or producer.op_type not in _LINEAR:
        return None
    follower = use.node
    try:
        operands = _operands(follower, moved, source, mover.op_type == "DepthToSpace", spread)
    except NotExact:
        return None
    if operands is None:
        return None
    early = _copy(follower, [v if v is not moved else source for v in operands], "early")
    late = _copy(mover, [early.outputs[0], *mover.inputs[1:]], "late")
    shape = list(source.shape or ())
    result = follower.outputs[0]
    if follower.op_type == "Conv" and result.shape is not None:
        shape[1] = result.shape[1]
    early.outputs[0].type, early.outputs[0].shape = result.type, ir.Shape(shape)
    late.outputs[0].type, late.outputs[0].shape = result.type, result.shape
    for value in operands:
        if value is not None and value.const_value is not None and value.graph is None:
            graph.register_initializer(value)
    graph.insert_after(follower, [early, late])
    name, is_output = result.name, result.is_graph_output()
    result.replace_all_uses_with(late.outputs[0], replace_graph_outputs=is_output)
    if is_output:
        result.name, late.outputs[0].name = f"{name}.moved", name
    graph.remove([follower, mover], safe=True)
    return late


def _is_between(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _spread(mover: ir.Node) -> Spread | None:
    """What a constant per channel of the result is per channel of the source; None where pixels do more than move."""
    if mover.domain not in ("", "ai.onnx"):
        return None
    if mover.op_type == "DepthToSpace":
        block, mode = mover.attributes["blocksize"].as_int() ** 2, mover.attributes.get("mode")
        by_channel = mode is not None and mode.as_string() == "CRD"
        return lambda values: np.repeat(values, block) if by_channel else np.tile(values, block)
    if mover.op_type == "Resize" and _resizes_the_image_alone(mover):
        return lambda values: values
    if mover.op_type == "Pad":
        mode, before, after = mover.attributes.get("mode"), mover.inputs[0], mover.outputs[0]
        if mode is None or mode.as_string() not in _REPEATING or before is None:
            return None
        return (lambda values: values) if _same_batch_and_channels(before, after) else None
    return None


def _resizes_the_image_alone(resize: ir.Node) -> bool:
    where = resize.attributes.get("coordinate_transformation_mode")
    if (where is not None and where.as_string() == "tf_crop_and_resize") or resize.inputs[0] is None:
        return False
    scales = resize.inputs[2] if len(resize.inputs) > 2 else None
    if "axes" not in resize.attributes and scales is not None and scales.const_value is not None:
        factors = scales.const_value.numpy()
        if factors.size:
            return bool(np.all(factors[:2] == 1))
    return _same_batch_and_channels(resize.inputs[0], resize.outputs[0])


def _same_batch_and_channels(one: ir.Value, two: ir.Value) -> bool:
    try:
        first, second = known_shape(one)[:2], known_shape(two)[:2]
    except NotExact:
        return False
    return None not in first and first == second


def _operands(
    follower: ir.Node, moved: ir.Value, source: ir.Value, spreads: bool, spread: Spread
) -> list[ir.Value | None] | None:
    """The follower's inputs once it reads the source; None where it does more than treat pixels alike."""
    if follower.domain not in ("", "ai.onnx") or any(output.uses() for output in follower.outputs[1:]):
        return None
    others = [value for value in follower.inputs if value is not moved]
    if not all(is_constant(value) for value in others):
        return None
    if follower.op_type == "BatchNormalization" and follower.inputs[0] is moved:
        training = follower.attributes.get("training_mode")
        if training is not None and training.as_int():
            return None
        return [moved, *(_constant(v, spread(_array(v)), moved) if spreads else v for v in others)]
    if follower.op_type in ("Add", "Div", "Mul", "Sub") and len(others) == 1:
        if follower.op_type == "Div" and follower.inputs[0] is not moved:
            return None
        shape = known_shape(moved)
        values = spread(per_channel(_array(others[0]), shape).value)
        constant = _constant(others[0], values.reshape(-1, *[1] * (len(shape) - 2)), moved)
        return [moved if value is moved else constant for value in follower.inputs]
    if follower.op_type == "Conv" and not spreads and follower.inputs[0] is moved:
        return list(follower.inputs) if _is_small_pointwise(follower) else None
    return None


def _is_small_pointwise(conv: ir.Node) -> bool:
    weight = conv.inputs[1]
    shape = () if weight is None or weight.shape is None else weight.shape.numpy()
    plain = all(
        all(number == neutral for number in attribute.as_ints())
        for name, neutral in (("strides", 1), ("pads", 0))
        if (attribute := conv.attributes.get(name)) is not None
    )
    group = conv.attributes.get("group")
    c_in = (shape[1] if shape else 0) * (1 if group is None else group.as_int())
    return plain and bool(shape) and all(k == 1 for k in shape[2:]) and shape[0] <= c_in


def _array(value: ir.Value | None) -> np.ndarray:
    return np.zeros(0) if value is None or value.const_value is None else value.const_value.numpy()


def _constant(like: ir.Value | None, array: np.ndarray, reader: ir.Value) -> ir.Value:
    dtype = ir.DataType.FLOAT if like is None or like.dtype is None else like.dtype
    name = f"{None if like is None else like.name}.for.{reader.name}"
    tensor = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=name)
    return ir.Value(name=name, const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape(array.shape))


def _copy(node: ir.Node, inputs: list[ir.Value | None], suffix: str) -> ir.Node:
    copy = ir.node(
        node.op_type,
        inputs,
        attributes=dict(node.attributes),
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    copy.outputs[0].name = f"{node.outputs[0].name}.{suffix}"
    return copy
