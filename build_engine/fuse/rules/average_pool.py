from __future__ import annotations

import math

import numpy as np

from build_engine.fuse.algebra import Deferred, Form, NotExact, Reason, Window
from build_engine.fuse.rules.commute import across
from build_engine.fuse.rules.convolution import explicit_pads
from build_engine.fuse.rules.site import Site


def average_pool(site: Site) -> Form:
    """AveragePool: depthwise with weights ``1 / (kH kW)`` (Diverse Branch Block, transform V).

    1. There is no padding, or padding is counted: else the border divides by fewer pixels, and only what is
       pointwise can move across (`commute.across`), as the weights still sum to 1 everywhere.
    2. `ceil_mode` adds no row or column at the known size.
    """
    form = site.form(0)
    kernel = site.integers("kernel_shape", [])
    strides, dilations = site.integers("strides", [1] * len(kernel)), site.integers("dilations", [1] * len(kernel))
    pads = explicit_pads(site, kernel, strides, dilations)
    if any(begin or end for begin, end in pads) and not site.integer("count_include_pad", 0):
        if form.is_pointwise and not all(term.is_identity for term in form.terms.values()):
            return across(site)
        raise NotExact(Reason.BORDER, "the average leaves padding out, so it divides by fewer pixels at the border")
    windows = [
        Window(k, s, d if k > 1 else 1, begin, end)
        for k, s, d, (begin, end) in zip(kernel, strides, dilations, pads, strict=True)
    ]
    if site.integer("ceil_mode", 0):
        for window, size in zip(windows, site.shape(0)[2:], strict=True):
            if window.stride > 1 and (not isinstance(size, int) or (size + window.slack - 1) % window.stride):
                raise NotExact(Reason.BORDER, f"ceil_mode adds an output that divides by fewer pixels (size {size})")
    shape = (form.c_out, 1, *kernel)
    weight = Deferred(shape, lambda: np.full(shape, 1.0 / math.prod(kernel)))
    return form.convolved(weight, windows, form.c_out)
