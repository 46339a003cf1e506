"""What each ONNX operator does to a convolution form; one file per idea.

A rule takes a `Site` and returns the form of the node's output (or outputs), or raises `NotExact`.
An operator that is not in `RULES` is opaque: its outputs are sources of their own.
"""

from build_engine.fuse.rules import (
    addition,
    arrange,
    average_pool,
    batch_norm,
    border,
    commute,
    concat,
    conv_transpose,
    convolution,
    identity,
    pad,
    scale,
    select,
    space_to_depth,
)
from build_engine.fuse.rules.site import Rule, Site

RULES: dict[str, Rule] = {
    "Add": arrange.everywhere(addition.add),
    "AveragePool": average_pool.average_pool,
    "BatchNormalization": batch_norm.batch_norm,
    "Cast": arrange.everywhere(identity.cast),
    "Concat": concat.concat,
    "Conv": convolution.conv,
    "ConvTranspose": conv_transpose.conv_transpose,
    "Div": arrange.everywhere(scale.div),
    "Dropout": arrange.everywhere(identity.dropout),
    "Flatten": arrange.reshape,
    "Gather": select.gather,
    "Gemm": arrange.gemm,
    "GlobalAveragePool": commute.global_average,
    "Identity": arrange.everywhere(identity.identity),
    "LeakyRelu": arrange.everywhere(identity.leaky_relu),
    "MatMul": arrange.matmul,
    "MaxPool": select.max_pool,
    "Mean": arrange.everywhere(addition.mean),
    "Mul": arrange.everywhere(scale.mul),
    "Neg": arrange.everywhere(scale.neg),
    "PRelu": identity.leaky_relu,
    "Pad": pad.pad,
    "ReduceMean": commute.global_average,
    "Reshape": arrange.reshape,
    "Resize": commute.resize,
    "ScatterND": border.scatter_nd,
    "Slice": select.slice_,
    "SpaceToDepth": space_to_depth.space_to_depth,
    "Split": select.split,
    "Squeeze": arrange.reshape,
    "Sub": arrange.everywhere(addition.sub),
    "Sum": arrange.everywhere(addition.add),
    "Transpose": arrange.transpose,
    "Unsqueeze": arrange.reshape,
}

__all__ = ["RULES", "Rule", "Site"]
