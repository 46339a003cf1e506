"""TensorRT-RTX's own account of a network's memory, which its compiler gives without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engine.graph import serialize
from build_engine.quantize.core import lower_precision_core, with_node_names
from build_engine.quantize.half import cast_nodes, half_nodes
from engine.errors import RuntimeUnavailable
from engine.tensorrt.plan import PlanOptions, build_plan


@dataclass(frozen=True)
class RtxMemory:
    """What the compiler says about one network, batch 1.

    Attributes:
        activation_bytes: Memory for intermediate tensors.
        constant_bytes: The part of it that the smallest convolution takes as well.
        weights_bytes: Memory for weights.
        kernels: Compiled kernels.
    """

    activation_bytes: int
    constant_bytes: int
    weights_bytes: int
    kernels: int

    @property
    def own_activation_bytes(self) -> int:
        """Activation memory less what any network takes."""
        return self.activation_bytes - self.constant_bytes


def rtx_memory(model: onnx.ModelProto, *, half: bool = True) -> RtxMemory | None:
    """Compile a network with TensorRT-RTX, batch 1, and read what its log says; a second or two, no GPU.

    Args:
        model: A float graph; only its batch may be open.
        half: Whether to compute it in FP16, batch norms included, as an engine on a vehicle would.

    Returns:
        The account, or None where TensorRT-RTX is not installed or its log does not say.

    Raises:
        BuildFailed: TensorRT-RTX refuses the network.
    """
    if half:
        model = _in_fp16(with_node_names(onnx.shape_inference.infer_shapes(model)))
    found, constant = _account(serialize(model)), _constant(half)
    return None if found is None or constant is None else RtxMemory(found[0], constant, *found[1:])


def _in_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The core of a network in FP16. Norms too, as TensorRT would have them: only what is served keeps those apart."""
    core = lower_precision_core(model)
    nodes, _ = half_nodes(model, core, {})
    norms = {node.name for node in model.graph.node if node.op_type == "BatchNormalization"}
    return cast_nodes(model, nodes | (norms & set(core.between)))


def _account(graph: bytes) -> tuple[int, int, int] | None:
    """Activation bytes, weight bytes, kernels."""
    try:
        plan = build_plan(graph, "rtx", PlanOptions(max_batch=1))
    except RuntimeUnavailable:
        return None
    if plan.activation_bytes is None:
        return None
    return plan.activation_bytes, plan.weights_bytes or 0, len(plan.layers)


@lru_cache
def _constant(half: bool) -> int | None:
    """Activation memory of the smallest convolution: 8.2 MB with 1.7.1, whatever the network."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [1, 8, 8, 8]) for name in "xy")
    weight = numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float16 if half else np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "constant", [x], [y], [weight])
    found = _account(serialize(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])))
    return None if found is None else found[0]
