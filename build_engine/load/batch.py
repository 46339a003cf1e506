"""The one dimension that is free at run time gets one name; those that only a run tells, a size where that is sure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import onnx

from build_engine.errors import BuildError
from build_engine.graph import BATCH, dimensions, feeds, random_inputs, tensor_specs
from build_engine.session import Session

LISTING = frozenset({"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique"})
"""Operators whose outputs may be as long as what is in their inputs wants."""


def name_batch(model: onnx.ModelProto, others: Collection[str] = ()) -> None:
    """Call the free first dimension `batch`, in place; a fixed one stays fixed.

    An exporter may have called it anything, or nothing at all.

    Args:
        model: The graph.
        others: Dimensions that are free and not the batch, though they may come first.

    Raises:
        BuildError: The inputs' first dimensions are free but not the same.
    """
    inputs = [value for value in feeds(model) if dimensions(value)]
    first = {dimensions(value)[0] for value in inputs}
    free = {name for name in first if isinstance(name, str)} - set(others)
    if not free:
        return
    if len(free - {""}) > 1:
        raise BuildError(
            f"the inputs' first dimensions are named {', '.join(sorted(free))}; they must be one batch",
            remedy="export the model with the same name for all of them; or say of those that are no batch how large "
            f"they get: {' '.join(f'--dimension {name}=100' for name in sorted(free - {''})[1:])}",
        )
    known = {name for value in inputs for name in dimensions(value)}
    for value in inputs:
        if dimensions(value)[0] in free:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH
    # What was derived from the old name is derived again; a declared output keeps its type and sizes.
    del model.graph.value_info[:]
    for value in model.graph.output:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param in free - {""}:
                dim.dim_param = BATCH if index == 0 else ""
            elif index == 0 and dim.dim_param not in ("", BATCH, *known):
                dim.dim_param = ""  # the batch by another name, or the length of a list: inference or a run tells


def fill_outputs(model: onnx.ModelProto, sizes: Mapping[str, int] = MappingProxyType({})) -> None:
    """Say what neither the file nor inference knows of the outputs' dimensions, in place, where runs can tell.

    Older exporters reshape to sizes that they compute. Two entries go in, then three:

    1. A first dimension that is as long as that is the batch.
    2. Another that is the same both times is fixed, if the inputs' dimensions are and nothing in the graph makes a list
       whose length depends on what it holds.

    Args:
        model: The graph, its inputs' dimensions named.
        sizes: Of the dimensions besides the batch that are free.
    """
    unknown = [value for value in model.graph.output if _unknown(dimensions(value))]
    shapes = [dimensions(value) for value in feeds(model)]
    if not unknown or not all(shape and shape[0] == BATCH and "" not in shape for shape in shapes):
        return
    try:
        session, specs = Session(model), tensor_specs(feeds(model))
        answered = {entries: session.run(random_inputs(specs, entries, entries, sizes)) for entries in (2, 3)}
    except BuildError:
        return  # the build says why, in its own words
    fixed = not sizes and not any(_unknown(shape) for shape in shapes)
    fixed &= not any(node.op_type in LISTING for node in model.graph.node)
    for value in unknown:
        seen = {entries: outputs[value.name].shape for entries, outputs in answered.items()}
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value > 0 or dim.dim_param == BATCH:  # some exporters write -1
                continue
            if axis == 0 and all(shape[:1] == (entries,) for entries, shape in seen.items()):
                dim.dim_param = BATCH
            elif fixed and seen[2][axis] == seen[3][axis]:
                dim.dim_value = seen[2][axis]


def _unknown(sizes: tuple[int | str, ...]) -> bool:
    return any(isinstance(size, str) and size != BATCH for size in sizes)
