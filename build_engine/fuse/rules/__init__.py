"""What each ONNX operator does to a convolution form; one file per idea.

A rule takes a `Site` and returns the form of the node's output (or outputs), or raises `NotExact`.
An operator that is not in `RULES` is opaque: its outputs are sources of their own.
"""

from build_engine.fuse.rules import (
    addition,
    average_pool,
    batch_norm,
    border,
    concat,
    convolution,
    identity,
    pad,
    scale,
    select,
    space_to_depth,
    transpose,
)
from build_engine.fuse.rules.site import Rule, Site

RULES: dict[str, Rule] = {
    "Add": addition.add,
    "AveragePool": average_pool.average_pool,
    "BatchNormalization": batch_norm.batch_norm,
    "Cast": identity.cast,
    "Concat": concat.concat,
    "Conv": convolution.conv,
    "Div": scale.div,
    "Dropout": identity.dropout,
    "Gather": select.gather,
    "Identity": identity.identity,
    "MaxPool": select.max_pool,
    "Mean": addition.mean,
    "Mul": scale.mul,
    "Neg": scale.neg,
    "Pad": pad.pad,
    "ScatterND": border.scatter_nd,
    "Slice": select.slice_,
    "SpaceToDepth": space_to_depth.space_to_depth,
    "Split": select.split,
    "Sub": addition.sub,
    "Sum": addition.add,
    "Transpose": transpose.transpose,
}

__all__ = ["RULES", "Rule", "Site"]
