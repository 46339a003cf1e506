from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from build_engine.fuse.algebra import Array, Convolution, Placed, TransposedConvolution
from build_engine.fuse.algebra.form import dense
from build_engine.fuse.algebra.window import Window
from build_engine.fuse.cuts import Cut
from build_engine.fuse.mapped import forget_pages
from build_engine.fuse.options import FuseOptions
from build_engine.fuse.provenance import metadata_of
from build_engine.fuse.realize import Plan, concatenated, is_affine, needs_slice, parts, realization, sliced


class Emitter:
    """Writes chosen forms into a graph as ONNX nodes.

    Args:
        graph: The graph; nodes are appended, the caller sorts it afterwards.
        options: The cost model, which picks among ways to compute a form.
    """

    def __init__(self, graph: ir.Graph, options: FuseOptions) -> None:
        self._graph = graph
        self._options = options
        self._now: dict[ir.Value, ir.Value] = {}
        self._names: set[str] = set()

    def replace(self, cut: Cut) -> list[ir.Node]:
        """Computes a cut's root by its form; returns the nodes written, none for an identity."""
        written = _outside(cut.leaves)
        self._graph.extend(written)
        plan = realization(cut.form, cut.root, self._options).plan
        leaves = [self._now.get(leaf, leaf) for leaf in cut.leaves]
        if plan is Plan.NOTHING:
            self.stand_in(cut.root, leaves[0])
            return written
        base = f"{_stem(cut)}.fused"
        while base in self._names:  # ONNX lets nodes share a name
            base += "_"
        self._names.add(base)
        bias = cut.form.bias
        own_bias = plan in (Plan.PARTS, Plan.AFFINE)
        bias_value = None if bias is None or own_bias else self.weight(f"{base}.bias", bias.value, cut.root)
        if plan is Plan.CONVOLUTION:
            (term,) = cut.form.terms.values()
            result = self.convolution(base, leaves[0], dense(term), bias_value, cut, written)
        elif plan is Plan.SLICE:
            placed = sliced(cut.form)
            assert placed is not None  # noqa: S101 (that is what the plan means)
            source = self._channels(base, leaves[0], placed, cut, written)
            result = self.convolution(base, source, placed.part, bias_value, cut, written)
        elif plan is Plan.AFFINE:
            (term,) = cut.form.terms.values()
            result = self._affine(base, leaves[0], dense(term), None if bias is None else bias.value, cut, written)
        elif plan is Plan.CONCATENATION:
            joined = concatenated(cut.form)
            assert joined is not None  # noqa: S101 (that is what the plan means)
            source = self._node(f"{base}.concat", "Concat", leaves, [ir.AttrInt64("axis", 1)], cut, written)
            source.shape = None
            result = self.convolution(base, source, joined, bias_value, cut, written)
        elif plan is Plan.PARTS:
            result = self._parts(base, leaves, cut, written)
        else:
            result = self._sum(base, leaves, cut, bias_value, written)
        self.insert(written)
        self.stand_in(cut.root, result)
        return written

    def insert(self, written: list[ir.Node]) -> None:
        """Puts new nodes at the graph's end; the caller sorts it when all are in."""
        self._graph.extend(node for node in written if node.graph is None)

    def _parts(self, base: str, leaves: list[ir.Value], cut: Cut, written: list[ir.Node]) -> ir.Value:
        """Each part's own convolution, then a Concat."""
        placed = zip(leaves, parts(cut.form) or [], strict=True)
        made = []
        for index, (leaf, term) in enumerate(sorted(placed, key=lambda pair: pair[1].start)):
            bias = None if cut.form.bias is None else cut.form.bias.value[term.start : term.stop]
            if term.part.is_identity and (bias is None or not bias.any()):
                made.append(leaf)
                continue
            name = f"{base}.{index}"
            if is_affine(term.part):
                made.append(self._affine(name, leaf, term.part, bias, cut, written))
                continue
            shift = None if bias is None else self.weight(f"{name}.bias", bias, cut.root)
            part = self.convolution(name, leaf, term.part, shift, cut, written)
            if cut.root.shape is not None:
                part.shape = ir.Shape([cut.root.shape[0], term.part.c_out, *cut.root.shape[2:]])
            made.append(part)
        return self._node(f"{base}.concat", "Concat", made, [ir.AttrInt64("axis", 1)], cut, written)

    def _affine(
        self,
        name: str,
        source: ir.Value,
        term: Convolution | TransposedConvolution,
        bias: Array | None,
        cut: Cut,
        written: list[ir.Node],
    ) -> ir.Value:
        """A Mul where there is something to scale, an Add where there is something to shift by."""
        per_channel, shape = (term.c_out, *[1] * term.axes), source.shape
        scale = term.weight.value.reshape(per_channel)
        if np.any(scale != 1):
            factor = self.weight(f"{name}.scale", scale, cut.root)
            source = self._node(f"{name}.mul" if bias is not None else name, "Mul", [source, factor], [], cut, written)
            source.shape = shape
        if bias is not None:
            shift = self.weight(f"{name}.shift", bias.reshape(per_channel), cut.root)
            source = self._node(name, "Add", [source, shift], [], cut, written)
            source.shape = shape
        return source

    def _sum(
        self, base: str, leaves: list[ir.Value], cut: Cut, bias: ir.Value | None, written: list[ir.Node]
    ) -> ir.Value:
        total: ir.Value | None = None
        every = (dense(term) for term in cut.form.terms.values())
        terms = sorted(zip(leaves, every, strict=True), key=lambda t: t[1].is_identity)
        terms = [(leaf, term) for leaf, term in terms if term.is_identity or term.weight.value.any()] or terms[:1]
        for index, (leaf, term) in enumerate(terms):
            carries_bias = index == 0 and bias is not None
            if term.is_identity and not carries_bias:
                part = leaf
            else:
                part = self.convolution(f"{base}.{index}", leaf, term, bias if carries_bias else None, cut, written)
            total = part if total is None else self._node(f"{base}.add{index}", "Add", [total, part], [], cut, written)
        assert total is not None  # noqa: S101 (a form has at least one term)
        return total

    def convolution(
        self,
        name: str,
        source: ir.Value,
        term: Convolution | TransposedConvolution,
        bias: ir.Value | None,
        cut: Cut,
        written: list[ir.Node],
    ) -> ir.Value:
        """Writes one term as a node: Conv, ConvTranspose, or Gemm where there are no image axes.

        Args:
            name: The node's name.
            source: What it reads.
            term: The convolution.
            bias: Its bias, an initializer.
            cut: What it is for: gives type, shape and metadata.
            written: New nodes, to which this one is added.
        """
        if isinstance(term, TransposedConvolution):
            return self._transposed(name, source, term, bias, cut, written)
        term = term.trimmed()
        windows = term.windows
        if needs_slice(windows):
            source = self._crop(name, source, term, cut, written)
        if not windows:
            matrix = self.weight(f"{name}.weight", term.in_groups(1).weight.value, cut.root)
            operands = [source, matrix] if bias is None else [source, matrix, bias]
            return self._node(name, "Gemm", operands, [ir.AttrInt64("transB", 1)], cut, written)
        weight = self.weight(f"{name}.weight", term.weight.value, cut.root)
        attributes = [
            ir.AttrInt64s("kernel_shape", [w.kernel for w in windows]),
            ir.AttrInt64s("strides", [w.stride for w in windows]),
            ir.AttrInt64s("dilations", [w.dilation for w in windows]),
            ir.AttrInt64s("pads", [max(w.begin, 0) for w in windows] + _ends(windows, source)),
            ir.AttrInt64("group", term.groups),
        ]
        inputs = [source, weight] if bias is None else [source, weight, bias]
        return self._node(name, "Conv", inputs, attributes, cut, written)

    def _transposed(
        self,
        name: str,
        source: ir.Value,
        term: TransposedConvolution,
        bias: ir.Value | None,
        cut: Cut,
        written: list[ir.Node],
    ) -> ir.Value:
        weight = self.weight(f"{name}.weight", term.weight.value, cut.root)
        attributes = [
            ir.AttrInt64s("kernel_shape", term.weight.shape[2:]),
            ir.AttrInt64s("strides", term.strides),
            ir.AttrInt64s("dilations", term.dilations),
            ir.AttrInt64s("pads", [begin for begin, _ in term.pads] + [end for _, end in term.pads]),
            ir.AttrInt64s("output_padding", term.output_padding),
            ir.AttrInt64("group", term.groups),
        ]
        inputs = [source, weight] if bias is None else [source, weight, bias]
        return self._node(name, "ConvTranspose", inputs, attributes, cut, written)

    def _crop(self, name: str, source: ir.Value, term: Convolution, cut: Cut, written: list[ir.Node]) -> ir.Value:
        """A Slice for negative padding, which Conv does not have."""
        starts = [max(-w.begin, 0) for w in term.windows]
        ends = [-max(-w.end, 0) or _TO_THE_END for w in term.windows]
        axes = list(range(2, 2 + len(starts)))
        return self._slice(f"{name}.crop", source, {"starts": starts, "ends": ends, "axes": axes}, cut, written)

    def _channels(self, name: str, source: ir.Value, term: Placed, cut: Cut, written: list[ir.Node]) -> ir.Value:
        """A Slice of the channels that a term reads."""
        bounds = {"starts": [term.first], "ends": [term.first + term.part.c_in], "axes": [1]}
        part = self._slice(f"{name}.channels", source, bounds, cut, written)
        if source.shape is not None:
            part.shape = ir.Shape([source.shape[0], term.part.c_in, *source.shape[2:]])
        return part

    def _slice(
        self, name: str, source: ir.Value, bounds: dict[str, list[int]], cut: Cut, written: list[ir.Node]
    ) -> ir.Value:
        inputs = [self._integers(f"{name}.{what}", values) for what, values in bounds.items()]
        part = self._node(name, "Slice", [source, *inputs], [], cut, written)
        part.shape = None
        return part

    def _node(
        self,
        name: str,
        op_type: str,
        inputs: list[ir.Value],
        attributes: list[ir.Attr],
        cut: Cut,
        written: list[ir.Node],
    ) -> ir.Value:
        node = ir.node(
            op_type,
            inputs,
            attributes={attribute.name: attribute for attribute in attributes},
            name=name,
            metadata_props=metadata_of(cut.nodes),
        )
        output = node.outputs[0]
        output.name = f"{name}.out"
        output.type = cut.root.type
        output.shape = cut.root.shape
        written.append(node)
        return output

    def weight(self, name: str, array: object, root: ir.Value) -> ir.Value:
        """A new initializer, rounded once from float64 to the tensor's type."""
        dtype = root.dtype or ir.DataType.FLOAT
        return self._register(name, ir.tensor(np.asarray(array).astype(dtype.numpy()), dtype=dtype, name=name))

    def _integers(self, name: str, values: list[int]) -> ir.Value:
        return self._register(name, ir.tensor(values, dtype=ir.DataType.INT64, name=name))

    def _register(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
        )
        self._graph.register_initializer(value)
        return value

    def stand_in(self, old: ir.Value, new: ir.Value) -> None:
        """Gives a tensor's readers, and its name if it is an output of the graph, to another tensor."""
        self._now[old] = new
        if not old.is_graph_output():
            old.replace_all_uses_with(new)
            return
        name = old.name
        if new.is_graph_output() or new.is_graph_input() or new.producer() is None:
            copy = ir.node("Identity", [new], name=f"{name}.identity")
            copy.outputs[0].type, copy.outputs[0].shape = old.type, old.shape
            self._graph.append(copy)
            new = self._now[old] = copy.outputs[0]
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = f"{name}.before"
        new.name = name


_TO_THE_END = 2**63 - 1


def apply(graph: ir.Graph, chosen: list[Cut], options: FuseOptions) -> list[list[ir.Node]]:
    """Writes cuts into the graph; returns the new nodes of each.

    The list is emptied on the way, so that each form's float64 weights are let go once they are written.
    """
    emitter = Emitter(graph, options)
    chosen.reverse()
    written = []
    while chosen:
        cut = chosen.pop()
        written.append(emitter.replace(cut))
        forget_pages(value for node in cut.nodes for value in node.inputs)
    return written


def _outside(leaves: Iterable[ir.Value]) -> list[ir.Node]:
    """Nodes that tensors depend on and that are not in the graph yet, each after those it reads."""
    found: list[ir.Node] = []
    for leaf in leaves:
        node = leaf.producer()
        if node is not None and node.graph is None and node not in found:
            found.extend(n for n in _outside(v for v in node.inputs if v is not None) if n not in found)
            found.append(node)
    return found


def _stem(cut: Cut) -> str:
    """A name that tells where the convolution comes from: its root's node, or its tensor."""
    producer = cut.root.producer()
    return str((producer.name if producer is not None else None) or cut.root.name)


def _ends(windows: Sequence[Window], source: ir.Value) -> list[int]:
    """Padding at the end of each axis: as much as at the beginning, where the output has the same size with it.

    A stride can stop short of the last zeros. Runtimes have their fast kernels for even padding: a 3x3 convolution with
    stride 2 padded (1, 0) took ONNX Runtime 3 % longer for a whole MobileOne than padded (1, 1).
    """
    ends = []
    for axis, window in enumerate(windows):
        size = None if source.shape is None else source.shape[axis + 2]
        even = replace(window, end=window.begin)
        same = isinstance(size, int) and window.begin > window.end >= 0 and even.size(size) == window.size(size)
        ends.append(max(even.end if same else window.end, 0))
    return ends
