"""16 bits: FP16 or BF16 tensors in the graph, with casts at the borders of the core."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engine.graph import constants, with_shapes
from build_engine.quantize.calibration import Ranges
from build_engine.quantize.core import Core

OPERATORS = frozenset(
    {
        *("Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Elu", "Erf", "Flatten", "Gelu"),
        *("Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul"),
        *("MaxPool", "Mul", "PRelu", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze"),
        *("Sub", "Tanh", "Transpose", "Unsqueeze"),
    }
)
"""What loses nothing that matters in 16 bits. Normalizations, softmax and sums over a map stay in FP32."""
HEADROOM = 0.5
"""Share of a type's range that calibration frames may use: the road shows brighter ones."""


@dataclass(frozen=True)
class HalfFormat:
    """A 16-bit float.

    Attributes:
        name: Its short name.
        element_type: ONNX's number for it.
        largest: Largest finite value.
        opset: The first operator set whose convolutions take it.
    """

    name: Literal["fp16", "bf16"]
    element_type: int
    largest: float
    opset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array type."""
        return helper.tensor_dtype_to_np_dtype(self.element_type)


FP16 = HalfFormat("fp16", TensorProto.FLOAT16, 65504.0, 13)
"""11 bits of significand, values up to 65504 (IEEE 754 binary16)."""
BF16 = HalfFormat("bf16", TensorProto.BFLOAT16, 3.3895e38, 22)
"""8 bits of significand, FP32's range."""


@dataclass(frozen=True)
class Half:
    """A graph in 16 bits.

    Attributes:
        model: The graph; its inputs and outputs are as before.
        kept_float: Nodes of the core that stay in FP32, and why.
    """

    model: onnx.ModelProto
    kept_float: dict[str, str]


def half_tensors(model: onnx.ModelProto, core: Core) -> tuple[str, ...]:
    """Names of the activations around the core's nodes, whose ranges decide what overflows."""
    typed = with_shapes(model)
    floats = _floats(typed) - set(constants(typed))
    members = {*core.weighted, *core.between, *core.last}
    around = (name for node in typed.graph.node if node.name in members for name in (*node.input, *node.output))
    return tuple(dict.fromkeys(name for name in around if name in floats))


def to_half(
    model: onnx.ModelProto,
    core: Core,
    ranges: Ranges | None = None,
    float_nodes: Collection[str] = (),
    form: HalfFormat = FP16,
) -> Half:
    """Compute the core of a network in 16 bits; inputs, outputs and decoding stay in FP32.

    Args:
        model: The fused float graph, every node named, with inferred shapes; of the form's operator set or newer.
        core: Where lower precision is borne.
        ranges: What the tensors of `half_tensors` were seen to hold; a layer that would overflow stays in FP32.
        float_nodes: Nodes to leave in FP32 all the same.
        form: Which 16 bits.
    """
    half, kept = half_nodes(model, core, ranges or {}, form)
    return Half(cast_nodes(model, half - set(float_nodes), form), kept)


def cast_nodes(model: onnx.ModelProto, half: Collection[str], form: HalfFormat = FP16) -> onnx.ModelProto:
    """Compute some nodes in 16 bits. A tensor is cast once where it enters them and once where it leaves them.

    Args:
        model: A graph, every node named.
        half: Names of the nodes.
        form: Which 16 bits.
    """
    typed = with_shapes(model)
    floats = _floats(typed)
    produced = {name for node in typed.graph.node if node.name in half for name in node.output if name in floats}
    fresh = _Casts(typed, floats, form)
    for node in typed.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        wants = form.element_type if node.name in half else TensorProto.FLOAT
        for index, name in enumerate(node.input):
            is_data = name in floats and not (node.op_type == "Resize" and index in (1, 2))
            if is_data and (name in produced) != (wants == form.element_type):
                copy.input[index] = fresh.cast(name, wants)
        for index, name in enumerate(node.output):
            if name in produced and name in fresh.graph_outputs:
                copy.output[index] = fresh.leave(name)
        fresh.nodes.append(copy)
        fresh.flush()
    return fresh.finish()


def _floats(model: onnx.ModelProto) -> set[str]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {name for name, array in constants(model).items() if array.dtype == np.float32}


def half_nodes(
    model: onnx.ModelProto, core: Core, ranges: Ranges, form: HalfFormat = FP16
) -> tuple[set[str], dict[str, str]]:
    """Nodes of the core that bear 16 bits, and why the others do not.

    Args:
        model: The fused float graph.
        core: Where lower precision is borne.
        ranges: What the tensors of `half_tensors` were seen to hold.
        form: Which 16 bits.
    """
    weights, title = constants(model), form.name.upper()
    members = {*core.weighted, *core.between, *core.last}
    half: set[str] = set()
    kept: dict[str, str] = {}
    for node in model.graph.node:
        if node.name not in members:
            continue
        largest = max(
            (
                float(np.abs(weights[n]).max(initial=0))
                for n in node.input
                if n in weights and weights[n].dtype == np.float32
            ),
            default=0.0,
        )
        if node.op_type not in OPERATORS:
            kept[node.name] = f"{node.op_type} needs FP32"
        elif largest > form.largest:
            kept[node.name] = f"a weight of {largest:.3g} exceeds {title}'s {form.largest:.6g}"
        elif (seen := _largest(node, ranges)) > form.largest * HEADROOM:
            kept[node.name] = f"its values reach {seen:.3g}, too near {title}'s {form.largest:.6g}"
        else:
            half.add(node.name)
    return half, kept


def _largest(node: onnx.NodeProto, ranges: Ranges) -> float:
    seen = (ranges[name] for name in (*node.input, *node.output) if name in ranges)
    return max((max(-one.lowest, one.highest) for one in seen), default=0.0)


class _Casts:
    """The new graph while it grows: nodes in order, and the casts they asked for before them."""

    def __init__(self, model: onnx.ModelProto, floats: set[str], form: HalfFormat) -> None:
        self._model, self._form = model, form
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._fresh_weights: dict[str, TensorProto] = {}
        self._known: dict[tuple[str, int], str] = {}
        self._pending: list[onnx.NodeProto] = []
        self._floats = floats
        self.graph_outputs = {output.name for output in model.graph.output}
        self.nodes: list[onnx.NodeProto] = []

    def cast(self, name: str, to: int) -> str:
        """The tensor in the other type: a converted weight, or the outcome of one Cast."""
        if (name, to) in self._known:
            return self._known[name, to]
        suffix = self._form.name if to == self._form.element_type else "fp32"
        other = self._known[name, to] = f"{name}.{suffix}"
        if name in self._weights:
            array = numpy_helper.to_array(self._weights[name]).astype(self._form.dtype)
            self._fresh_weights[other] = numpy_helper.from_array(array, other)
        else:
            self.nodes.append(helper.make_node("Cast", [name], [other], f"{name}/{suffix}", to=to))
        return other

    def leave(self, name: str) -> str:
        """The 16-bit name of a graph output, whose own name is the FP32 cast of it."""
        half = f"{name}.half"
        self._pending.append(helper.make_node("Cast", [half], [name], f"{name}/fp32", to=TensorProto.FLOAT))
        self._known[name, TensorProto.FLOAT] = name
        self._known[name, self._form.element_type] = half
        return half

    def flush(self) -> None:
        """Put the casts of graph outputs right behind the node that computes them."""
        self.nodes += self._pending
        self._pending.clear()

    def finish(self) -> onnx.ModelProto:
        """The whole graph, with the weights that are still read."""
        result = onnx.ModelProto()
        result.CopyFrom(self._model)
        del result.graph.node[:]
        del result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input}
        del result.graph.initializer[:]
        result.graph.initializer.extend(t for n, t in self._weights.items() if n in read or n in self.graph_outputs)
        result.graph.initializer.extend(self._fresh_weights.values())
        return with_shapes(result, check_type=True)
