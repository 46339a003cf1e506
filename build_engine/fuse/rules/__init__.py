"""What each ONNX operator does to a convolution form; one file per idea.

A rule takes a `Site` and returns the form of the node's output (or outputs), or raises `NotExact`.
An operator that is not in `RULES` is opaque: its outputs are sources of their own.
"""

from build_engine.fuse.rules import addition, batch_norm, convolution, identity, scale
from build_engine.fuse.rules.site import Rule, Site

RULES: dict[str, Rule] = {
    "Add": addition.add,
    "BatchNormalization": batch_norm.batch_norm,
    "Cast": identity.cast,
    "Conv": convolution.conv,
    "Div": scale.div,
    "Dropout": identity.dropout,
    "Identity": identity.identity,
    "Mean": addition.mean,
    "Mul": scale.mul,
    "Neg": scale.neg,
    "Sub": addition.sub,
    "Sum": addition.add,
}

__all__ = ["RULES", "Rule", "Site"]
