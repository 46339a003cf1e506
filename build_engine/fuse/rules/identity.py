import numpy as np

from build_engine.fuse.algebra import Form, NotExact, Reason
from build_engine.fuse.rules.site import Site


def identity(site: Site) -> Form:
    """Identity; always."""
    return site.form(0)


def dropout(site: Site) -> Form:
    """Dropout at inference.

    1. Training mode is off: left out or a constant false.
    2. The mask output is unused.
    """
    training = site.optional_constant(2)
    if (training is not None and bool(training)) or any(output.uses() for output in site.node.outputs[1:]):
        raise NotExact(Reason.OPERATOR, "a dropout in training mode is random")
    return site.form(0)


def cast(site: Site) -> Form:
    """Cast to the type the tensor has already."""
    source, target = site.node.inputs[0], site.integer("to", 0)
    if source is None or source.dtype is None or int(source.dtype) != target:
        raise NotExact(Reason.NONLINEARITY, "a cast rounds")
    return site.form(0)


def leaky_relu(site: Site) -> Form:
    """LeakyRelu and PRelu whose slope has become 1, as networks that train their nonlinearities away end up.

    1. Every slope is 1.
    """
    slopes = np.asarray(site.real("alpha", 0.01)) if site.node.op_type == "LeakyRelu" else site.constant(1)
    if np.any(slopes != 1):
        raise NotExact(Reason.NONLINEARITY, f"{site.node.op_type} bends at zero")
    return site.form(0)
