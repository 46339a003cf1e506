"""How a form is computed: one convolution, one over concatenated sources, or a sum of several."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import onnx_ir as ir

from build_engine.fuse.algebra import Convolution, Deferred, Form, NotExact, Placed, TransposedConvolution, Window
from build_engine.fuse.algebra.form import dense
from build_engine.fuse.cost import assumed_sizes, macs_ns
from build_engine.fuse.options import FuseOptions

_SLICE_BYTES = 64
"""What a Slice reads besides its source, its bounds: no less than in any model, so that none is written anew."""


class Plan(enum.Enum):
    """Ways to compute a form."""

    NOTHING = "the tensor itself"
    AFFINE = "a scale and a shift per channel"
    CONVOLUTION = "one convolution"
    SLICE = "one convolution of a slice of its source's channels"
    CONCATENATION = "one convolution of concatenated sources"
    PARTS = "concatenated convolutions"
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
    terms = [(source, dense(term)) for source, term in form.terms.items() if isinstance(source, ir.Value)]

    def convolution_ns(term: Convolution | TransposedConvolution, read: float) -> float:
        """One Conv node, and a Slice before it where it crops; without image axes one Gemm, which is dense."""
        output = written / sizes[1] * term.c_out
        if isinstance(term, TransposedConvolution):
            macs, crop = read / item * math.prod(term.weight.shape[1:]), 0
        else:
            term = term if term.windows else term.in_groups(1)
            macs, crop = output / item * math.prod(term.weight.shape[1:]), int(needs_slice(term.windows))
        bias = 0 if form.bias is None else term.c_out * item
        moved = read + output + math.prod(term.weight.shape) * item + bias + 2 * read * crop
        arithmetic = macs_ns(macs, term.c_in // term.groups, term.groups, options)
        return arithmetic + moved * options.ns_per_byte + (1 + crop) * options.ns_per_launch

    reads = [math.prod(assumed_sizes(source, options)) * item for source, _ in terms]
    if len(terms) == 1:
        if terms[0][1].is_identity and form.bias is None:
            return Realization(Plan.NOTHING, 0.0)
        if is_affine(terms[0][1]):
            steps = int(not terms[0][1].is_identity) + int(form.bias is not None)
            return Realization(Plan.AFFINE, steps * (2 * written * options.ns_per_byte + options.ns_per_launch))
        whole = Realization(Plan.CONVOLUTION, convolution_ns(terms[0][1], reads[0]))
        part = sliced(form)
        if part is None:
            return whole
        read = reads[0] / part.c_in * part.part.c_in
        cost = (reads[0] + read + _SLICE_BYTES) * options.ns_per_byte + options.ns_per_launch
        return min(whole, Realization(Plan.SLICE, cost + convolution_ns(part.part, read)), key=lambda way: way.cost_ns)
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
    placed = parts(form)
    if placed is not None:
        cost = 2 * written * options.ns_per_byte + options.ns_per_launch
        cost += sum(
            convolution_ns(term.part, read)
            for term, read in zip(placed, reads, strict=True)
            if form.bias is not None or not term.part.is_identity
        )
        if cost < best.cost_ns:
            best = Realization(Plan.PARTS, cost)
    return best


def is_affine(term: Convolution | TransposedConvolution) -> bool:
    """Whether a term only scales channels: as a convolution it would be more than it was."""
    return isinstance(term, Convolution) and term.is_pointwise and term.is_depthwise


def sliced(form: Form) -> Placed | None:
    """The only term, where it makes every channel and reads a range of its source's, and is worth a node."""
    (term,) = form.terms.values()
    if isinstance(term, Placed) and term.makes_all and not term.reads_all and not is_affine(term.part):
        return term
    return None


def parts(form: Form) -> list[Placed] | None:
    """The terms as parts of a concatenation that together make every channel once, else None; each reads all."""
    placed = [term.widened() for term in form.terms.values() if isinstance(term, Placed)]
    ranges = sorted((term.start, term.stop) for term in placed)
    edges = [0, *(stop for _, stop in ranges)]
    if len(placed) < len(form.terms) or [start for start, _ in ranges] != edges[:-1] or edges[-1] != form.c_out:
        return None
    return placed


def needs_slice(windows: tuple[Window, ...]) -> bool:
    """Whether a window crops its source, which Conv cannot."""
    return any(window.begin < 0 or window.end < 0 for window in windows)


def concatenated(form: Form) -> Convolution | None:
    """The convolution of all sources concatenated along channels, in the order of ``form.terms``.

    1. The sources have equal, known spatial sizes (and one batch, as they are added). Not knowing them is
       not enough: under a stride, sources that differ by a pixel give outputs of one size.
    2. Their windows have a union.
    """
    terms = [(s, term) for s, own in form.terms.items() if isinstance(term := dense(own), Convolution)]
    if len(terms) < len(form.terms):
        return None
    shapes = [source.shape for source, _ in terms if isinstance(source, ir.Value)]
    images = [None if shape is None else [str(dim) for dim in shape[2:]] for shape in shapes]
    if any(image is None or image != images[0] or "None" in image or "?" in image for image in images):
        return None
    sizes = form.sizes[terms[0][0]]
    windows = terms[0][1].windows
    try:
        for _, term in terms[1:]:
            if term.windows != windows:
                windows = tuple(a.union(b, n) for a, b, n in zip(windows, term.windows, sizes, strict=True))
    except NotExact:
        return None
    joined = [term for _, term in terms]
    shape = (form.c_out, sum(term.c_in for term in joined), *(window.kernel for window in windows))
    # Most are only asked for their size.
    weight = Deferred(shape, lambda: Convolution.joined([t.in_groups(1).grown(windows) for t in joined]).weight.value)
    return Convolution(weight, windows)
