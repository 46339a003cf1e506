"""Trained shortcuts removed: ``relu(F(x) + x)`` as a plain chain (RMNet, arXiv 2111.00687).

After a ReLU a tensor is non-negative, so a copy of it passes through the next ReLU unharmed. The block's first
convolution *reserves* channels for that copy, and its second one *merges* them back in. The shortcut is gone, for
wider convolutions: what that costs is reported, and whether it pays is for a measurement to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import onnx_ir as ir

from build_engine.fuse.algebra import Convolution, Form, NotExact, Reason, Window
from build_engine.fuse.algebra.form import dense
from build_engine.fuse.cost import Cost, LiveStep, cost_of, is_constant, live_steps, sized_for
from build_engine.fuse.cuts import Cut
from build_engine.fuse.emit import Emitter
from build_engine.fuse.fusion import Model, finished
from build_engine.fuse.options import FuseOptions
from build_engine.fuse.prepare import prepare, tidy
from build_engine.fuse.rules.convolution import conv
from build_engine.fuse.rules.select import strided
from build_engine.fuse.rules.site import Site, known_shape

_NON_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"})
_KEEPS_SIGN = frozenset(
    {"Add", "AveragePool", "Concat", "Dropout", "GlobalAveragePool", "Identity", "MaxPool", "Mul", "Reshape"}
)


@dataclass(frozen=True)
class ResidualResult(Generic[Model]):
    """A model without the shortcuts that could be removed.

    Args:
        model: The new model, of the type that was given.
        removed: Names of the additions that are gone.
        before: What the model cost with them.
        after: What it costs without.
        live_after: Its memory of activations over time then.
    """

    model: Model
    removed: tuple[str, ...]
    before: Cost
    after: Cost
    live_after: tuple[LiveStep, ...]


def remove_residuals(model: Model, options: FuseOptions | None = None) -> ResidualResult[Model]:
    """Turns every ``conv(relu(conv(x))) + shortcut(x)`` of a fused model into a plain chain, exactly.

    1. ``x`` is non-negative: it comes from a ReLU, or from something else that cannot be negative.
    2. Nothing else reads what lies between ``x`` and the sum.
    3. The shortcut is ``x`` itself or a 1x1 convolution of it, with the stride of the first convolution.
    4. Both convolutions keep the size up to the stride, so that a tap lies on every output's own position.

    Args:
        model: A model, fused before, so that its norms are gone.
        options: Sizes to assume where the model leaves them open. None means default.

    Raises:
        BuildError: The model is invalid.
    """
    options = options or FuseOptions()
    working = prepare(model)
    graph, opset = working.graph, working.opset_imports.get("", 1)
    options = sized_for(graph, options)
    before = cost_of(graph, options)
    emitter = Emitter(graph, options)
    removed = []
    for node in list(graph):
        if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
            continue
        for branch, shortcut in (tuple(node.inputs), tuple(reversed(node.inputs))):
            try:
                _reserve_and_merge(node, branch, shortcut, emitter, opset)
            except NotExact:
                continue
            removed.append(node.name or str(node.outputs[0].name))
            break
    graph.sort()
    tidy(working)
    return ResidualResult(
        finished(working, model), tuple(removed), before, cost_of(graph, options), live_steps(graph, options)
    )


def _reserve_and_merge(
    add: ir.Node, branch: ir.Value | None, shortcut: ir.Value | None, emitter: Emitter, opset: int
) -> None:
    """Rewrites one block.

    Raises:
        NotExact: A condition of `remove_residuals` does not hold.
    """
    second = _only(branch, "Conv")
    activation = _only(second.inputs[0], "Relu")
    first = _only(activation.inputs[0], "Conv")
    source = first.inputs[0]
    if source is None or shortcut is None or not is_non_negative(source):
        raise NotExact(Reason.NONLINEARITY, "the source may be negative")
    form = _form(first, opset)
    if shortcut is source:
        point = Convolution.identity(dense(form.terms[source]).c_in, form.axes).in_groups(1)
        point_form, step = None, (1,) * form.axes
    else:
        point_form = _form(_only(shortcut, "Conv"), opset)
        if source not in point_form.terms:
            raise NotExact(Reason.GEOMETRY, "the shortcut starts elsewhere")
        own = dense(point_form.terms[source])
        if not isinstance(own, Convolution) or any(w != Window(stride=w.stride) for w in own.windows):
            raise NotExact(Reason.GEOMETRY, "the shortcut is no 1x1 convolution")
        step = tuple(w.stride for w in own.windows)
        point = Convolution(own.weight, (Window(),) * form.axes, own.groups).in_groups(1)
    # Reserve: the first convolution makes its own channels and, below them, a copy of the source.
    middle, kept = form.c_out, point.c_in
    image = Form.of(source, kept, form.sizes[source])
    reserved = form.placed(0, middle + kept).plus(strided(image, step).placed(middle, middle + kept))
    # Merge: the second one reads both.
    inner = activation.outputs[0]
    merged_from = _form(second, opset)
    wide = dense(merged_from.terms[inner])
    wide_reserved = dense(reserved.terms[source])
    if not isinstance(wide, Convolution) or not isinstance(wide_reserved, Convolution):
        raise NotExact(Reason.GEOMETRY, "a transposed convolution")
    windows = tuple(
        a.union(b, n) for a, b, n in zip(wide.windows, point.windows, merged_from.sizes[inner], strict=True)
    )
    merged = Convolution.joined([wide.in_groups(1).grown(windows), point.grown(windows)])
    bias = merged_from.bias_value() + (0.0 if point_form is None else point_form.bias_value())
    _write(add, source, inner, (reserved, wide_reserved), (merged, bias), emitter)


def _write(
    add: ir.Node,
    source: ir.Value,
    inner: ir.Value,
    reserve: tuple[Form, Convolution],
    merge: tuple[Convolution, object],
    emitter: Emitter,
) -> None:
    """The two wider convolutions with the ReLU between them."""
    written: list[ir.Node] = []
    root, name = add.outputs[0], add.name or str(add.outputs[0].name)
    cut = Cut(root, reserve[0], frozenset({add}), 0.0)
    bias = None if reserve[0].bias is None else emitter.weight(f"{name}.reserve.bias", reserve[0].bias.value, root)
    wide = emitter.convolution(f"{name}.reserve", source, reserve[1], bias, cut, written)
    sizes = list(inner.shape or ())
    wide.shape = ir.Shape([sizes[0], reserve[1].c_out, *sizes[2:]])
    relu = ir.node("Relu", [wide], name=f"{name}.relu")
    relu.outputs[0].name, relu.outputs[0].type, relu.outputs[0].shape = f"{name}.relu.out", root.type, wide.shape
    written.append(relu)
    shift = emitter.weight(f"{name}.merge.bias", merge[1], root)
    result = emitter.convolution(f"{name}.merge", relu.outputs[0], merge[0], shift, cut, written)
    emitter.insert(written)
    emitter.stand_in(root, result)


def _only(value: ir.Value | None, op_type: str) -> ir.Node:
    """The producer of a tensor that nothing else reads, if it is of this type."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != op_type or len(value.uses()) > 1 or value.is_graph_output():
        raise NotExact(Reason.SHARED, f"no {op_type} of its own")
    return node


def _form(node: ir.Node, opset: int) -> Form:
    """A Conv node's form relative to what it reads."""
    source = node.inputs[0]
    shape = known_shape(source)
    if source is None or not isinstance(shape[1], int):
        raise NotExact(Reason.UNKNOWN_SHAPE, f"channels of {shape}")
    image = Form.of(source, shape[1], [dim if isinstance(dim, int) else None for dim in shape[2:]])
    constants = [None if v is None or v.const_value is None else v.const_value.numpy() for v in node.inputs[1:]]
    return conv(Site(node, (image, *constants), opset))


def is_non_negative(value: ir.Value) -> bool:
    """Whether a tensor cannot hold negative numbers."""
    node = value.producer()
    if node is None:
        return False
    if node.op_type in _NON_NEGATIVE:
        return True
    if node.op_type == "Clip" and len(node.inputs) > 1:
        low = node.inputs[1]
        return low is not None and low.const_value is not None and float(low.const_value.numpy()) >= 0
    if node.op_type not in _KEEPS_SIGN:
        return False
    read = [v for v in node.inputs[: 1 if node.op_type == "Reshape" else None] if v is not None]
    return all(not is_constant(v) and is_non_negative(v) for v in read)
