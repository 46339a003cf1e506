"""From the tensors of a request to what the engine takes. Everything a client says of them is checked first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.tensors import TensorSpec
from protos.inference.service_pb2 import ModelInferRequest
from server.engines.extent import Extent, free_sizes
from server.engines.tensor_request import TensorSource
from server.errors import RequestInvalid
from server.open_inference.contents import read_contents
from server.open_inference.datatypes import DATATYPES, make_truth_values
from server.open_inference.models import Model
from server.open_inference.placement import FindRegion, read_placement
from server.open_inference.regions import SharedInput

MOST_DIMENSIONS = 32
Tensor = ModelInferRequest.InferInputTensor
Inputs = dict[str, npt.NDArray[Any] | TensorSource]


@dataclass(frozen=True)
class RawInput:
    """An input whose elements are in the raw contents.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: Its sizes.
        byte_size: Its bytes.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    byte_size: int

    def read(self, content: memoryview) -> RawContent:
        """The input; not copied.

        Raises:
            RequestInvalid: Bytes are missing or too many.
        """
        if len(content) != self.byte_size:
            _check_bytes(self.name, self.byte_size, len(content))
        return RawContent(content, self.dtype, self.shape)


class RawContent:
    """An input that lies in its request's message, and goes from there to where the engine reads it: one copy.

    Args:
        content: Its bytes.
        dtype: Its element type.
        shape: Its sizes.
    """

    __slots__ = ("content", "dtype", "shape")

    def __init__(self, content: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.content = content
        self.dtype = dtype
        self.shape = shape

    def copy_into(self, target: memoryview) -> None:
        """Copy its bytes."""
        target[:] = self.content
        if self.dtype == bool:
            make_truth_values(target)


@dataclass(frozen=True)
class InputPlan:
    """How a request's inputs are put together. It depends on the request's head alone.

    Attributes:
        raw: Inputs in raw contents, in their order.
        others: Inputs that came another way.
        extent: How large the request is; its batch is 1 for a model without one, and possibly 0 for one with it.
    """

    raw: tuple[RawInput, ...]
    others: Inputs
    extent: Extent

    def read(self, contents: Sequence[memoryview]) -> Inputs:
        """Every input by name.

        Args:
            contents: The request's raw contents.

        Raises:
            RequestInvalid: Some are missing, or too many, or of another size.
        """
        if len(contents) < len(self.raw):
            raise RequestInvalid(
                f"no raw_input_contents are left for input '{self.raw[len(contents)].name}'",
                remedy="send one for each input that is not in shared memory, in the order of the inputs",
            )
        if len(contents) > len(self.raw):
            raise RequestInvalid(
                f"{len(contents)} raw_input_contents came, for {len(self.raw)} inputs that are not in shared memory",
                remedy="send one for each of those, in the order of the inputs",
            )
        inputs = dict(self.others)
        for one, content in zip(self.raw, contents, strict=True):
            inputs[one.name] = one.read(content)
        return inputs


def plan_inputs(model: Model, request: ModelInferRequest, has_raw: bool, find_region: FindRegion) -> InputPlan:
    """Check everything that a request says of its inputs.

    Args:
        model: What they are for.
        request: Without its raw contents.
        has_raw: Whether it has any.
        find_region: Looks up the caller's shared memory.

    Raises:
        StreamEnded: Something is missing, too much or does not fit; the message says which.
    """
    tensors = _by_name(model, request.inputs)
    batch = _check_batch(model, tensors)
    for name, tensor in tensors.items():
        _check_tensor(model, model.inputs[name], tensor)
    shapes = ((model.inputs[name], tensor.shape) for name, tensor in tensors.items())
    extent = Extent(batch, free_sizes(shapes, model.smallest, model.largest))
    raw: list[RawInput] = []
    others: Inputs = {}
    for name, tensor in tensors.items():
        spec = model.inputs[name]
        shape, dtype = tuple(tensor.shape), np.dtype(spec.dtype)
        byte_size = math.prod(shape) * dtype.itemsize
        placement = read_placement(name, tensor.parameters, find_region)
        if placement is not None:
            if tensor.HasField("contents"):
                raise RequestInvalid(
                    f"input '{name}' is in shared memory, and has contents", remedy="send one or the other"
                )
            _check_bytes(name, byte_size, placement.byte_size)
            others[name] = SharedInput(placement.region, placement.offset, dtype, shape)
        elif not has_raw:
            others[name] = _typed(spec, tensor, shape, byte_size)
        elif tensor.HasField("contents"):
            raise RequestInvalid(
                f"input '{name}' has contents beside raw_input_contents", remedy="send all inputs one way"
            )
        else:
            raw.append(RawInput(name, dtype, shape, byte_size))
    return InputPlan(tuple(raw), others, extent)


def _by_name(model: Model, given: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """Every input of the model, each given once."""
    tensors: dict[str, Tensor] = {}
    for tensor in given:
        if tensor.name not in model.inputs:
            raise RequestInvalid(
                f"model '{model.name}' has no input '{tensor.name[:80]}'", remedy=f"send {', '.join(model.inputs)}"
            )
        if tensor.name in tensors:
            raise RequestInvalid(f"input '{tensor.name}' was sent twice", remedy="send it once")
        tensors[tensor.name] = tensor
    if missing := [name for name in model.inputs if name not in tensors]:
        raise RequestInvalid(
            f"model '{model.name}' takes {len(model.inputs)} inputs, {len(tensors)} came: {_quoted(tensors)} without "
            f"{_quoted(missing)}",
            remedy="send every input",
        )
    return tensors


def _check_batch(model: Model, tensors: Mapping[str, Tensor]) -> int:
    """Entries of the batch, the same for every input that has one."""
    sizes = {}
    for name, tensor in tensors.items():
        if model.inputs[name].batched:
            if not tensor.shape:
                raise RequestInvalid(
                    f"input '{name}' of model '{model.name}' has no shape, so no batch",
                    remedy=f"send shape {_shape(model.inputs[name].shape)}",
                )
            sizes[name] = tensor.shape[0]
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"'{name}' has {size}" for name, size in sizes.items())
        raise RequestInvalid(
            f"inputs of model '{model.name}' differ in their batch: {told}", remedy="send as many entries of each"
        )
    batch = next(iter(sizes.values()), 1)
    if not 0 <= batch <= model.largest_batch:
        raise RequestInvalid(
            f"a batch of {batch}, model '{model.name}' takes up to {model.largest_batch}",
            remedy="split it, or build the bundle again with a larger --max-batch",
        )
    return batch


def _check_tensor(model: Model, spec: TensorSpec, tensor: Tensor) -> None:
    """Element type and shape; the batch is checked already."""
    wanted = DATATYPES[spec.dtype]
    if tensor.datatype != wanted:
        raise RequestInvalid(
            f"input '{spec.name}' came as '{tensor.datatype[:20]}', model '{model.name}' takes '{wanted}'",
            remedy=f"convert it to {wanted}",
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        given >= 0 if isinstance(size, str) else size == given
        for size, given in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        given = _shape(tensor.shape) if len(tensor.shape) <= MOST_DIMENSIONS else f"{len(tensor.shape)} dimensions"
        batch = "; the first one is the batch" if spec.batched else ""
        raise RequestInvalid(
            f"input '{spec.name}' has shape {given}, model '{model.name}' takes {_shape(spec.shape)}{batch}",
            remedy="send that shape",
        )


def _typed(spec: TensorSpec, tensor: Tensor, shape: tuple[int, ...], byte_size: int) -> npt.NDArray[Any]:
    """An input that was sent as a list of numbers."""
    if byte_size and not tensor.HasField("contents"):
        raise RequestInvalid(f"input '{spec.name}' has no contents", remedy="send raw_input_contents or contents")
    values = read_contents(spec, tensor.contents)
    _check_bytes(spec.name, byte_size, values.nbytes)
    return values.reshape(shape)


def _check_bytes(name: str, wanted: int, given: int) -> None:
    if given != wanted:
        raise RequestInvalid(
            f"input '{name}' has {given} bytes, its shape and type need {wanted}", remedy="send all of it"
        )


def _shape(sizes: Sequence[int | str]) -> str:
    return f"[{','.join(str(size) if isinstance(size, int) else '-1' for size in sizes)}]"


def _quoted(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
