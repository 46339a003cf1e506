"""How a form is computed: one convolution, one over concatenated sources, or a sum of several."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import onnx_ir as ir

from build_engine.fuse.algebra import Convolution, Form, NotExact, TransposedConvolution, Window
from build_engine.fuse.algebra.form import Term
from build_engine.fuse.cost import assumed_sizes
from build_engine.fuse.options import FuseOptions


class Plan(enum.Enum):
    """Ways to compute a form."""

    NOTHING = "the tensor itself"
    CONVOLUTION = "one convolution"
    CONCATENATION = "one convolution of concatenated sources"
    SUM = "a sum of convolutions"


@dataclass(frozen=True)
class Realization:
    """A way to compute a form and what it costs."""

    plan: Plan
    cost_ns: float


def realization(form: Form, root: ir.Value, options: FuseOptions) -> Realization:
    """The cheapest way to compute ``form`` as the tensor ``root``; infinitely costly where there is none."""
    if root.dtype is None or root.shape is None or len(root.shape) != form.axes + 2:
        return Realization(Plan.NOTHING, math.inf)
    sizes = assumed_sizes(root, options)
    item = root.dtype.itemsize
    written = math.prod(sizes) * item
    terms = [(source, term) for source, term in form.terms.items() if isinstance(source, ir.Value)]

    def convolution_ns(term: Term, read: float) -> float:
        """One Conv node, and a Slice before it where it crops; without image axes one Gemm, which is dense."""
        weight = math.prod(term.weight.shape)
        if isinstance(term, TransposedConvolution):
            macs = read / item * math.prod(term.weight.shape[1:])
            moved = read + written + weight * item
            return macs * options.ns_per_mac + moved * options.ns_per_byte + options.ns_per_launch
        if not term.windows:
            term = term.in_groups(1)
            weight = math.prod(term.weight.shape)
        macs = math.prod(sizes) * math.prod(term.weight.shape[1:])
        moved = read + written + weight * item
        cropped = needs_slice(term.windows)
        launches = 2 if cropped else 1
        return (
            macs * options.ns_per_mac
            + (moved + 2 * read * cropped) * options.ns_per_byte
            + launches * options.ns_per_launch
        )

    reads = [math.prod(assumed_sizes(source, options)) * item for source, _ in terms]
    if len(terms) == 1:
        if terms[0][1].is_identity and form.bias is None:
            return Realization(Plan.NOTHING, 0.0)
        return Realization(Plan.CONVOLUTION, convolution_ns(terms[0][1], reads[0]))
    convolved = [not term.is_identity for _, term in terms]
    if not any(convolved):
        convolved[0] = form.bias is not None
    total = sum(
        convolution_ns(term, read) for (_, term), read, needed in zip(terms, reads, convolved, strict=True) if needed
    )
    total += (len(terms) - 1) * (3 * written * options.ns_per_byte + options.ns_per_launch)
    best = Realization(Plan.SUM, total)
    joined = concatenated(form)
    if joined is not None:
        gather = 2 * sum(reads) * options.ns_per_byte + options.ns_per_launch
        cost = gather + convolution_ns(joined, sum(reads))
        if cost < best.cost_ns:
            best = Realization(Plan.CONCATENATION, cost)
    return best


def needs_slice(windows: tuple[Window, ...]) -> bool:
    """Whether a window crops its source, which Conv cannot."""
    return any(window.begin < 0 or window.end < 0 for window in windows)


def concatenated(form: Form) -> Convolution | None:
    """The convolution of all sources concatenated along channels, in the order of ``form.terms``.

    1. The sources have equal, known spatial sizes (and one batch, as they are added).
    2. Their windows have a union.
    """
    terms = [(source, term) for source, term in form.terms.items() if isinstance(term, Convolution)]
    if len(terms) < len(form.terms):
        return None
    shapes = [source.shape for source, _ in terms if isinstance(source, ir.Value)]
    if any(shape is None or list(shape[2:]) != list(shapes[0][2:]) for shape in shapes if shapes[0] is not None):
        return None
    sizes = form.sizes[terms[0][0]]
    windows = terms[0][1].windows
    try:
        for _, term in terms[1:]:
            windows = tuple(a.union(b, n) for a, b, n in zip(windows, term.windows, sizes, strict=True))
    except NotExact:
        return None
    return Convolution.joined([term.in_groups(1).grown(windows) for _, term in terms])
