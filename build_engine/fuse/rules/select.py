from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from build_engine.fuse.algebra import Convolution, Form, NotExact, Reason, Window
from build_engine.fuse.algebra.deferred import Deferred
from build_engine.fuse.rules.site import Site

_FAR = 2**31 - 2  # exporters write "to the end" as the largest int64 or int32


def strided(form: Form, steps: Sequence[int]) -> Form:
    """Every ``step``-th position on each spatial axis, starting with the first."""
    if all(step == 1 for step in steps):
        return form
    shape = (form.c_out, 1) + (1,) * form.axes
    windows = tuple(Window(stride=step) for step in steps)
    return form.then(Convolution(Deferred(shape, lambda: np.ones(shape)), windows, form.c_out))


def slice_(site: Site) -> Form:
    """Slice on channels (some rows), on height and width (a crop, then a stride).

    1. Bounds are constants and steps on spatial axes are positive.
    2. Where a spatial size is unknown, the slice starts at a distance from the beginning and ends at one
       from the end.
    3. The batch is whole.
    """
    form, shape = site.form(0), site.shape(0)
    crops, steps = [(0, 0)] * form.axes, [1] * form.axes
    rows = list(range(form.c_out))
    for axis, start, stop, step in _bounds(site, len(shape)):
        size = shape[axis]
        if axis == 1:
            rows = rows[slice(start, _python_stop(stop, step), step)]
            continue
        if step < 0:
            raise NotExact(Reason.OPERATOR, "a slice backwards mirrors the image")
        if isinstance(size, int):
            begin, last, _ = slice(start, stop).indices(size)
            end = size - max(last, begin)
        else:
            begin, end = _open_crop(start, stop)
        if axis == 0:
            if (begin, end, step) != (0, 0, 1):
                raise NotExact(Reason.OPERATOR, "it slices the batch")
            continue
        crops[axis - 2], steps[axis - 2] = (-begin, -end), step
    return strided(form.padded(crops), steps).selected(rows)


def _open_crop(start: int, stop: int) -> tuple[int, int]:
    """Pixels cut at both ends of an axis of unknown size."""
    if start < 0 or 0 <= stop < _FAR:
        raise NotExact(Reason.UNKNOWN_SHAPE, f"what [{start}:{stop}] cuts off depends on the size")
    return start, max(-stop, 0)


def _python_stop(stop: int, step: int) -> int | None:
    """ONNX writes "past the first element", backwards, as a very negative stop."""
    return None if step < 0 and stop < -_FAR else stop


def _bounds(site: Site, rank: int) -> list[tuple[int, int, int, int]]:
    """``(axis, start, stop, step)`` per sliced axis; opset 10 moved them from attributes to inputs."""
    if site.opset < 10:
        starts, stops = site.integers("starts", []), site.integers("ends", [])
        axes = site.integers("axes", range(len(starts)))
        steps = tuple([1] * len(starts))
    else:
        starts, stops = (tuple(int(i) for i in site.constant(k).reshape(-1)) for k in (1, 2))
        given, stepped = site.optional_constant(3), site.optional_constant(4)
        axes = tuple(range(len(starts)) if given is None else (int(a) for a in given.reshape(-1)))
        steps = tuple([1] * len(starts) if stepped is None else (int(s) for s in stepped.reshape(-1)))
    return [(a % rank, b, e, s) for a, b, e, s in zip(axes, starts, stops, steps, strict=True)]


def split(site: Site) -> list[Form]:
    """Split on channels: some rows each.

    1. The axis is that of the channels and the sizes are known.
    """
    form = site.form(0)
    if site.integer("axis", 0) % (form.axes + 2) != 1:
        raise NotExact(Reason.OPERATOR, "it splits the image, not the channels")
    parts = len(site.node.outputs)
    given = site.optional_constant(1) if site.opset >= 13 else None
    if given is not None:
        sizes = [int(size) for size in given.reshape(-1)]
    else:
        even = -(-form.c_out // parts)
        equal = [even] * (parts - 1) + [form.c_out - even * (parts - 1)]
        sizes = list(site.integers("split", equal))
    starts = np.cumsum([0, *sizes]).tolist()
    return [form.selected(range(a, b)) for a, b in itertools.pairwise(starts)]


def gather(site: Site) -> Form:
    """Gather on channels: some rows, in any order.

    1. Indices are constants in one list and the axis is that of the channels.
    """
    form, indices = site.form(0), site.constant(1)
    if site.integer("axis", 0) % (form.axes + 2) != 1 or indices.ndim != 1:
        raise NotExact(Reason.OPERATOR, "it gathers something other than a list of channels")
    return form.selected([int(i) % form.c_out for i in indices])


def max_pool(site: Site) -> Form:
    """MaxPool with a 1x1 window, which only strides.

    1. The kernel is 1 on every axis, without padding.
    """
    form = site.form(0)
    if any(k != 1 for k in site.integers("kernel_shape", [2])) or any(site.integers("pads", [0])):
        raise NotExact(Reason.NONLINEARITY, "a maximum over several pixels is not linear")
    return strided(form, site.integers("strides", [1] * form.axes))
