"""The one dimension that is free at run time gets one name."""

from __future__ import annotations

import onnx

from build_engine.errors import BuildError
from build_engine.graph import BATCH, dimensions, feeds, random_inputs, tensor_specs
from build_engine.session import Session


def name_batch(model: onnx.ModelProto) -> None:
    """Call the free first dimension `batch`, in place; a fixed one stays fixed.

    An exporter may have called it anything, or nothing at all.

    Raises:
        BuildError: The inputs' first dimensions are free but not the same.
    """
    inputs = [value for value in feeds(model) if dimensions(value)]
    first = {dimensions(value)[0] for value in inputs}
    free = {name for name in first if isinstance(name, str)}
    if not free:
        return
    if len(free - {""}) > 1:
        raise BuildError(
            f"the inputs' first dimensions are named {', '.join(sorted(free))}; they must be one batch",
            remedy="export the model with the same name for all of them",
        )
    for value in inputs:
        if dimensions(value)[0] in free:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH
    # What was derived from the old name is derived again; a declared output keeps its type and sizes.
    del model.graph.value_info[:]
    for value in model.graph.output:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param in free - {""} or (index == 0 and dim.dim_param not in ("", BATCH)):
                dim.dim_param = BATCH if index == 0 else ""


def name_output_batch(model: onnx.ModelProto) -> None:
    """Call the first dimension of an output `batch`, in place, where neither the file nor inference says what it is.

    Older exporters reshape to a batch that they compute. Two entries go in, then three: what comes out as long as that
    is the batch.
    """
    unknown = [value for value in model.graph.output if _unknown(dimensions(value)[:1])]
    sizes = [dimensions(value) for value in feeds(model)]
    if not unknown or not all(size and size[0] == BATCH and "" not in size for size in sizes):
        return
    try:
        session, specs = Session(model), tensor_specs(feeds(model))
        answered = {entries: session.run(random_inputs(specs, entries, 0)) for entries in (2, 3)}
    except BuildError:
        return  # the build says why, in its own words
    for value in unknown:
        if all(outputs[value.name].shape[:1] == (entries,) for entries, outputs in answered.items()):
            value.type.tensor_type.shape.dim[0].dim_param = BATCH


def _unknown(sizes: tuple[int | str, ...]) -> bool:
    return any(isinstance(size, str) and size != BATCH for size in sizes)
