from __future__ import annotations

import numpy as np

from build_engine.fuse.algebra import Convolution, Deferred, Form, NotExact, Reason, TransposedConvolution
from build_engine.fuse.algebra.form import dense
from build_engine.fuse.rules.site import Site


def conv_transpose(site: Site) -> Form:
    """ConvTranspose, a form of its own kind: scales, shifts and 1x1 convolutions after it go into it.

    1. Weight and bias are constants and the geometry is given by strides and pads, not by a size.
    2. What comes before it is pointwise and has no bias: a bias would be spread unevenly.
    """
    form, weight, bias = site.form(0), site.constant(1), site.optional_constant(2)
    if site.text("auto_pad", "NOTSET") != "NOTSET" or site.integers("output_shape", []):
        raise NotExact(Reason.GEOMETRY, "the geometry of a transposed convolution follows from a size")
    if not form.is_pointwise or form.bias is not None:
        raise NotExact(Reason.BORDER, "only 1x1 convolutions without bias go into a transposed convolution")
    axes = weight.ndim - 2
    flat = site.integers("pads", [0] * (2 * axes))
    own = TransposedConvolution(
        Deferred(weight.shape, lambda: weight.astype(np.float64)),
        site.integers("strides", [1] * axes),
        site.integers("dilations", [1] * axes),
        tuple(zip(flat[:axes], flat[axes:], strict=True)),
        site.integers("output_padding", [0] * axes),
        site.integer("group", 1),
    )
    terms = {
        source: own.of(first) for source, term in form.terms.items() if isinstance(first := dense(term), Convolution)
    }
    shift = None if bias is None else Deferred.of(bias)
    return Form(terms, shift, form.sizes)
