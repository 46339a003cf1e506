"""From what the engine gave to the answer: the outputs that were asked for, each where it was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protos.inference import wire
from protos.inference.service_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from server.engines.extent import Extent
from server.errors import RequestInvalid
from server.open_inference.classification import best_classes
from server.open_inference.datatypes import DATATYPES
from server.open_inference.models import Model
from server.open_inference.placement import FindRegion, Placement, read_placement

CLASSIFICATION = "classification"
SORTING_COST = 32
"""Bytes that are copied in the time that one byte of scores takes to be sorted, about."""


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for.

    Attributes:
        name: The output.
        classes: How many best classes to give instead; 0 gives the output itself.
        placement: Where it goes; None means into the answer.
    """

    name: str
    classes: int = 0
    placement: Placement | None = None


def read_outputs(model: Model, request: ModelInferRequest, find_region: FindRegion) -> list[Wanted]:
    """The outputs that a request asks for, in the model's order; all of them where it names none.

    Raises:
        StreamEnded: One is unknown, or its parameters make no sense.
    """
    if not request.outputs:
        return [Wanted(name) for name in model.outputs]
    wanted: dict[str, Wanted] = {}
    for output in request.outputs:
        if output.name not in model.outputs:
            raise RequestInvalid(
                f"model '{model.name}' has no output '{output.name[:80]}'",
                remedy=f"ask for {', '.join(model.outputs)}",
            )
        placement = read_placement(output.name, output.parameters, find_region)
        wanted[output.name] = Wanted(output.name, _classes(output.name, output.parameters), placement)
    return [wanted[name] for name in model.outputs if name in wanted]


def output_shapes(model: Model, extent: Extent) -> dict[str, tuple[int, ...]]:
    """The shape of each output; where only the run tells a size, it is the largest there may be."""
    sizes = {**model.largest, **dict(extent.sizes)}
    return {name: spec.concrete(extent.batch, sizes) for name, spec in model.outputs.items()}


def cost_bytes(model: Model, wanted: Sequence[Wanted], extent: Extent) -> int:
    """What writing an answer takes, counted in bytes that are copied, at most."""
    shapes = output_shapes(model, extent)
    return sum(
        math.prod(shapes[one.name]) * model.outputs[one.name].itemsize_bytes * (SORTING_COST if one.classes else 1)
        for one in wanted
    )


def answer_head(
    model: Model, request_id: str, tensors: Iterable[tuple[str, str, Sequence[int]]], *, in_stream: bool
) -> bytes:
    """An answer without its raw contents, on the wire.

    Args:
        model: What computed it.
        request_id: The request's.
        tensors: Name, element type and shape of each output.
        in_stream: Whether it is one of a stream's, which says that it is the final one.
    """
    answer = ModelInferResponse(model_name=model.name, model_version=model.version, id=request_id)
    if in_stream:
        answer.parameters["triton_final_response"].bool_param = True
    for name, datatype, shape in tensors:
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
    return answer.SerializeToString()


def raw_bytes(array: npt.NDArray[Any]) -> memoryview:
    """An output's elements; not copied. It is contiguous."""
    return array.reshape(-1).view(np.uint8).data


def write_answer(
    model: Model,
    request_id: str,
    wanted: Sequence[Wanted],
    outputs: Mapping[str, npt.NDArray[Any]],
    *,
    in_stream: bool,
) -> bytes:
    """An answer on the wire; outputs that go to shared memory are written there.

    Args:
        model: What computed it.
        request_id: The request's.
        wanted: What it asked for.
        outputs: Every output by name.
        in_stream: See `answer_head`.

    Raises:
        RequestInvalid: Shared memory is too small for an output.
    """
    tensors: list[tuple[str, str, Sequence[int]]] = []
    raw: list[memoryview | bytes] = []
    for one in wanted:
        array = outputs[one.name]
        content: memoryview | bytes
        if one.classes:
            shape, content = _classified(model, array, one.classes)
            tensors.append((one.name, "BYTES", shape))
        else:
            content = raw_bytes(array)
            tensors.append((one.name, DATATYPES[array.dtype.name], array.shape))
        raw.append(content if one.placement is None else _place(one.name, one.placement, content))
    return wire.join(answer_head(model, request_id, tensors, in_stream=in_stream), raw, in_stream=in_stream)


def _classified(model: Model, scores: npt.NDArray[Any], count: int) -> tuple[tuple[int, ...], bytes]:
    """The best classes, per entry of the batch where there is one."""
    entries = scores.shape[0] if model.batched else 1
    shape, content = best_classes(scores.reshape(entries, scores.size // max(1, entries)), count)
    return shape if model.batched else shape[1:], content


def _place(name: str, placement: Placement, content: memoryview | bytes) -> bytes:
    """Write an output to shared memory; what is left for the answer is nothing."""
    if len(content) > placement.byte_size:
        raise RequestInvalid(
            f"output '{name}' has {len(content)} bytes, {placement.byte_size} of shared memory were given for it",
            remedy="correct shared_memory_byte_size",
        )
    placement.region.write(placement.offset, memoryview(content))
    return b""


def _classes(name: str, parameters: Mapping[str, InferParameter]) -> int:
    if CLASSIFICATION not in parameters:
        return 0
    kind = parameters[CLASSIFICATION].WhichOneof("parameter_choice")
    count = getattr(parameters[CLASSIFICATION], kind) if kind in ("int64_param", "uint64_param") else 0
    if count < 1:
        raise RequestInvalid(
            f"'{CLASSIFICATION}' of output '{name}' is {count if kind else 'nothing'}",
            remedy="send how many classes to answer, at least 1, as an int64_param",
        )
    return int(count)
