from __future__ import annotations

import numpy as np

from build_engine.fuse.algebra import Form, NotExact, Reason
from build_engine.fuse.algebra.form import Source
from build_engine.fuse.rules.site import Site

_REPEATING = frozenset({"edge", "reflect", "wrap"})


def across(site: Site) -> Form:
    """Moves what is pointwise across an operator that mixes pixels and leaves channels alone.

    ``R(A x + b) = A R(x) + b`` for every pointwise ``A``, so the form is relative to ``R(x)``, a tensor that
    the graph does not have yet.

    1. The form is pointwise and more than the tensor itself.
    2. The operator treats all channels alike and its weights sum to 1, so that ``b`` stays ``b``; each caller
       sees to that.
    """
    form = site.form(0)
    if not form.is_pointwise or all(term.is_identity for term in form.terms.values()):
        raise NotExact(Reason.OPERATOR, f"{site.node.op_type} is no convolution and nothing can move across it")
    if site.moved is None:
        raise NotExact(Reason.OPERATOR, f"{site.node.op_type} is no convolution")
    terms, sizes = {}, {}
    for source, term in form.terms.items():
        twin: Source = site.moved(source)
        terms[twin] = term
        sizes[twin] = tuple(size if isinstance(size, int) else None for size in site.output_shape()[2:])
    return Form(terms, form.bias, sizes)


def global_average(site: Site) -> Form:
    """GlobalAveragePool, and ReduceMean over the whole image: `across`.

    1. The axes are exactly those of the image, and stay as axes of size 1.
    """
    if site.node.op_type == "ReduceMean":
        rank = len(site.shape(0))
        given = site.constant(1).reshape(-1).tolist() if site.opset >= 18 else site.integers("axes", [])
        if sorted(axis % rank for axis in given) != list(range(2, rank)) or not site.integer("keepdims", 1):
            raise NotExact(Reason.OPERATOR, "a mean over other axes than those of the image")
    return across(site)


def resize(site: Site) -> Form:
    """Resize: `across`.

    1. Batch and channels keep their sizes.
    2. Nothing is taken from outside the image (``tf_crop_and_resize`` does).
    """
    if site.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise NotExact(Reason.BORDER, "a crop that may reach outside the image")
    if not _keeps_batch_and_channels(site):
        raise NotExact(Reason.OPERATOR, "it resizes channels")
    return across(site)


def _keeps_batch_and_channels(site: Site) -> bool:
    """By the axes it names, by its scales, or by the shapes."""
    axes = site.integers("axes", [])
    if axes:
        return all(axis % len(site.shape(0)) >= 2 for axis in axes)
    scales = site.optional_constant(2) if len(site.operands) > 2 else None
    if scales is not None and scales.size:
        return bool(np.all(scales[:2] == 1))
    return None not in site.shape(0)[:2] and site.output_shape()[:2] == site.shape(0)[:2]


def repeating_pad(site: Site) -> Form:
    """Pad that repeats or mirrors pixels: `across`.

    1. Batch and channels keep their sizes.
    """
    if site.text("mode", "constant") not in _REPEATING or site.output_shape()[1] != site.shape(0)[1]:
        raise NotExact(Reason.BORDER, f"a {site.text('mode', 'constant')} border repeats pixels")
    return across(site)
