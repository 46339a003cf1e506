import numpy as np

from build_engine.fuse.algebra import Deferred, Form, NotExact, Reason
from build_engine.fuse.rules.site import Site


def batch_norm(site: Site) -> Form:
    """BatchNormalization: ``gamma (y - mean) / sqrt(variance + epsilon) + beta`` per channel.

    1. Inference mode: statistics are constants and only the first output is used.
    """
    form = site.form(0)
    gamma, beta, mean, variance = (site.constant(i).astype(np.float64) for i in range(1, 5))
    if site.integer("training_mode", 0) or any(output.uses() for output in site.node.outputs[1:]):
        raise NotExact(Reason.OPERATOR, "a batch norm in training mode normalizes with its own batch")
    epsilon = site.real("epsilon", 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    return form.scaled(Deferred.of(scale)).shifted(Deferred.of(beta - mean * scale))
