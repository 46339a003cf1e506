"""INT8 by explicit QuantizeLinear and DequantizeLinear pairs, placed as each runtime's kernels want them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from build_engine.graph import constants, with_shapes
from build_engine.quantize.blocks import find_blocks, read_in_blocks
from build_engine.quantize.calibration import Limits
from build_engine.quantize.core import WEIGHTED, Core, downstream
from build_engine.quantize.fp8 import as_float8
from build_engine.quantize.heads import integer_products, pointwise_heads
from build_engine.quantize.upsampling import repeat_pixels

VNNI = ("avx_vnni|avx512_vnni|neon_dotprod",)
"""What the CPU's graph assumes. x86 processors without these multiply U8 by S8 into saturating 16 bits, and the graph
computes other numbers."""


@dataclass(frozen=True)
class Recipe:
    """How a runtime wants its 8 bits.

    Attributes:
        name: Name of the graph in the bundle.
        activations: Integer type of activations.
        symmetric: Whether activations have no zero point.
        no_kernel: Weighted operators that the runtime computes in float whatever their inputs are.
        between: Operators between weighted layers that run on integers too.
        constants_too: Whether those may have a constant among their operands: TensorRT refuses quantized constants
            other than weights.
        channels_last: Whether integer kernels read channels last, four at once. Then the layer that reads the image
            runs on integers only where it can read a camera's bytes in blocks of pixels (`quantize.blocks`), and
            upsampling (`quantize.upsampling`) and 1x1 heads (`quantize.heads`) are written so that they can.
        rest_in_half: Whether layers of the core that are not INT8 are FP16, since the runtime has fast kernels for it.
        options: What else ONNX Runtime's quantizer is told.
        float8: Whether the 8 bits are a float, E4M3.
    """

    name: str
    activations: QuantType
    symmetric: bool
    no_kernel: frozenset[str]
    between: frozenset[str]
    constants_too: bool
    channels_last: bool
    rest_in_half: bool
    options: Mapping[str, Any]
    float8: bool = False


CPU_INT8 = Recipe(
    "cpu-int8",
    QuantType.QUInt8,
    symmetric=False,
    no_kernel=frozenset({"ConvTranspose"}),
    between=frozenset(
        {
            "Add",
            "AveragePool",
            "Clip",
            "Concat",
            "Flatten",
            "GlobalAveragePool",
            "LeakyRelu",
            "MaxPool",
            "Mul",
            "Pad",
            "Relu",
            "Reshape",
            "Resize",
            "Sigmoid",
            "Split",
            "Squeeze",
            "Transpose",
        }
    ),
    constants_too=True,
    channels_last=True,
    rest_in_half=False,
    options={"WeightSymmetric": True},
)
"""ONNX Runtime's: unsigned activations times signed weights is what a CPU's dot-product instructions compute. They
want four input channels at once, so on three the float kernel is the faster one, unless pixels make up for channels."""

TENSORRT_INT8 = Recipe(
    "trt-int8",
    QuantType.QInt8,
    symmetric=True,
    no_kernel=frozenset(),
    between=frozenset({"Add"}),
    constants_too=False,
    channels_last=False,
    rest_in_half=True,
    options={
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        # TensorRT refuses int32 Q/DQ on biases and adds them in float for free.
        "QuantizeBias": False,
        # Else Conv-Q-DQ-Relu-Q-DQ, which keeps the activation out of the convolution's kernel.
        "OpTypesToExcludeOutputQuantization": sorted(WEIGHTED),
    },
)
"""TensorRT's: no zero points; the pairs stand where a kernel reads, and TensorRT moves them past pooling by itself."""


TENSORRT_FP8 = replace(TENSORRT_INT8, name="trt-fp8", float8=True)
"""TensorRT's, from compute capability 8.9 on: the pairs stand where INT8's do."""


def quantized_nodes(model: onnx.ModelProto, core: Core, recipe: Recipe) -> tuple[str, ...]:
    """Names of the nodes that get 8-bit inputs, heads apart (see `integer_heads`)."""
    layers = set(core.weighted)
    if recipe.channels_last:
        layers -= {name for name in core.first if find_blocks(model, name) is None}
    between = set(core.between) & downstream(model, layers)
    fixed = constants(model)
    return tuple(
        node.name
        for node in model.graph.node
        if (node.name in layers and node.op_type not in recipe.no_kernel)
        or (
            node.name in between
            and node.op_type in recipe.between
            and (recipe.constants_too or not any(name in fixed for name in node.input))
        )
    )


def integer_heads(model: onnx.ModelProto, core: Core, recipe: Recipe, nodes: Collection[str]) -> tuple[str, ...]:
    """Names of the last layers that compute on integers what these nodes give them, and write floats."""
    return pointwise_heads(model, core, nodes) if recipe.channels_last else ()


def quantized_tensors(model: onnx.ModelProto, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the activations around these nodes, whose ranges have to be known."""
    fixed = constants(model)
    integers = {
        value.name
        for value in (*model.graph.value_info, *model.graph.input)
        if value.type.tensor_type.elem_type not in (0, onnx.TensorProto.FLOAT)
    }
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in nodes:
            for name in (*node.input, *node.output):
                if name and name not in fixed and name not in integers:
                    names[name] = None
    return tuple(names)


def to_int8(
    model: onnx.ModelProto,
    core: Core,
    limits: Limits,
    recipe: Recipe,
    float_nodes: Collection[str] = (),
) -> onnx.ModelProto:
    """Quantize the core of a network.

    Args:
        model: The fused float graph, opset 13 or newer (19 for FP8), every node named.
        core: Where lower precision is borne.
        limits: The range that 8 bits cover, for every tensor of `quantized_tensors` (see `choose_limits`).
        recipe: For which runtime.
        float_nodes: Nodes to leave in float all the same.

    Returns:
        The graph with weights stored as INT8 per output channel, and activations per tensor.
    """
    nodes = [name for name in quantized_nodes(model, core, recipe) if name not in float_nodes]
    first = [find_blocks(model, name) for name in core.first if recipe.channels_last and name in nodes]
    blocks = [found for found in first if found]
    source = with_shapes(model)
    source.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")  # else it writes the model to disk for that
    chosen = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in {**limits, **{one.tensor: one.limits for one in blocks}}.items()
    }
    kinds = {node.op_type for node in model.graph.node if node.name in nodes}
    root = logging.getLogger()
    disabled, root.disabled = root.disabled, True  # it says on the root logger what it decides
    try:
        quantizer = QDQQuantizer(
            source,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=recipe.activations,
            tensors_range=TensorsData(CalibrationMethod.MinMax, chosen),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(kinds),
            extra_options=dict(recipe.options),
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    finally:
        root.disabled = disabled
    result = with_shapes(quantizer.model.model)
    if recipe.channels_last:
        for one in blocks:
            result = read_in_blocks(result, one)
        heads = integer_heads(model, core, recipe, nodes)
        result = integer_products(repeat_pixels(result), [name for name in heads if name not in float_nodes])
    return as_float8(result, model) if recipe.float8 else result
