"""The mean of a camera's frames, in the first convolution: done only where it is measured to be faster.

`conv(x - mean)` pads with zeros after the mean went, so a bias cannot make up for it at the border. A channel of ones
can: padded with zeros as well, it brings `-sum W mean` exactly where the image is. That costs a Pad along the channels
and a third more multiplications in one layer, for a Sub.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from build_engine.camera_input import camera_offset
from build_engine.compile.interleaved import Ratio, interleaved, ratio
from build_engine.fuse import FusionMismatch, Verifier
from build_engine.graph import Tensors, constants, consumers, serialize
from build_engine.options import NVIDIA_TARGETS
from build_engine.progress import Progress
from engine.manifest import Target


@dataclass(frozen=True)
class MeanFolding:
    """What became of the mean.

    Attributes:
        folded: Whether it is part of the first convolution.
        reason: Why, in a sentence.
        latency: Time with it folded over time with it subtracted; None where nothing was measured.
    """

    folded: bool
    reason: str
    latency: Ratio | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def fold_mean_where_faster(
    subtracting: onnx.ModelProto,
    fused: onnx.ModelProto,
    verifier: Verifier,
    inputs: Tensors,
    *,
    targets: tuple[Target, ...],
    seconds: float,
    threads: int,
    progress: Progress,
) -> tuple[onnx.ModelProto, MeanFolding]:
    """Fold the mean into the first convolution, if a graph that does so is faster here.

    Args:
        subtracting: The graph as it would be served.
        fused: The same as it left the fuser, with the mean subtracted from channels first.
        verifier: Has to agree with the outcome.
        inputs: What to measure on.
        targets: Where the graph will run.
        seconds: Time for measuring each form; 0 measures nothing, and the mean stays.
        threads: Threads of one inference while measuring.
        progress: Shown a bar.
    """
    if camera_offset(fused) is None:
        return subtracting, MeanFolding(True, "the fuser could, exactly: no padding is in the way")
    folded = with_ones(fused)
    if folded is None:
        return subtracting, MeanFolding(False, "what reads it is not one convolution")
    if any(target in NVIDIA_TARGETS for target in targets):
        return subtracting, MeanFolding(False, "TensorRT subtracts it in the kernel that reads the frame, at no cost")
    if seconds <= 0:
        return subtracting, MeanFolding(False, "nothing was measured, so it is subtracted")
    try:
        verifier.check(folded)
    except FusionMismatch as mismatch:
        return subtracting, MeanFolding(False, f"verification refuses it: {mismatch.message}")
    graphs = {"subtracted": serialize(subtracting), "folded": serialize(folded)}
    times = interleaved(
        graphs,
        dict.fromkeys(graphs, inputs),
        seconds=seconds,
        threads=threads,
        progress=progress,
        title="Measuring the mean",
    )
    found = ratio(times["folded"], times["subtracted"])
    said = f"folded, an inference takes {found.median:.3f}x the time ({found.low:.3f} to {found.high:.3f})"
    if found.is_faster:
        return folded, MeanFolding(True, f"measured to be faster: {said}", found)
    return subtracting, MeanFolding(False, f"not measured to be faster: {said}", found)


def with_ones(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph with its mean in the first convolution and a channel of ones beside the image's own, or None.

    1. The mean is subtracted after the frames' channels came first (`camera_offset`).
    2. One Conv with constant weights and without groups reads that, and nothing else does.
    """
    found = camera_offset(model)
    following = consumers(model).get(found.node.output[0], []) if found else []
    if found is None or len(following) != 1 or following[0].op_type != "Conv":
        return None
    weight = constants(model).get(following[0].input[1])
    if weight is None or weight.ndim != 4 or weight.shape[1] != found.offset.size:
        return None
    return _rewritten(model, found.node, following[0], found.offset, weight)


def _rewritten(
    model: onnx.ModelProto, add: onnx.NodeProto, conv: onnx.NodeProto, offset: np.ndarray, weight: np.ndarray
) -> onnx.ModelProto:
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    ones = np.einsum("ochw,c->ohw", weight.astype(np.float64), offset.astype(np.float64))[:, None]
    wider = np.concatenate([weight, ones.astype(weight.dtype)], 1)
    names = {"weight": f"{conv.input[1]}.mean", "pads": f"{add.name}.pads", "one": f"{add.name}.one"}
    fresh.graph.initializer.extend(
        [
            numpy_helper.from_array(wider, names["weight"]),
            numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64), names["pads"]),
            numpy_helper.from_array(np.array(1, weight.dtype), names["one"]),
        ]
    )
    for node in fresh.graph.node:
        if node.name == add.name:
            pad = helper.make_node("Pad", [add.input[0], names["pads"], names["one"]], list(add.output), add.name)
            node.CopyFrom(pad)
        elif node.name == conv.name:
            node.input[1] = names["weight"]
    read = {name for node in fresh.graph.node for name in node.input}
    kept = [tensor for tensor in fresh.graph.initializer if tensor.name in read]
    del fresh.graph.initializer[:]
    fresh.graph.initializer.extend(kept)
    del fresh.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fresh, data_prop=True)
