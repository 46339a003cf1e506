"""Elements of a tensor that were sent as lists of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.tensors import TensorSpec
from protos.inference.service_pb2 import InferTensorContents
from server.errors import RequestInvalid
from server.open_inference.datatypes import DATATYPES

FIELDS = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
}
"""The list that holds each element type; half-precision numbers have none."""

_NARROW = {"int8", "int16", "uint8", "uint16"}
"""Types whose list holds wider numbers."""


def read_contents(spec: TensorSpec, contents: InferTensorContents) -> npt.NDArray[Any]:
    """The elements of an input, in one row.

    Args:
        spec: The input.
        contents: What was sent for it.

    Raises:
        RequestInvalid: The type has no list, another list is filled, or a value does not fit the type.
    """
    field = FIELDS.get(spec.dtype)
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    strays = [name for name in filled if name != field]
    if field is None or strays:
        remedy = "send it in raw_input_contents" if field is None else f"fill {field}, or send it in raw_input_contents"
        raise RequestInvalid(
            f"input '{spec.name}' is {DATATYPES[spec.dtype]}, but {', '.join(strays) or 'contents'} came", remedy=remedy
        )
    values = np.array(getattr(contents, field))
    narrowed = values.astype(spec.dtype, copy=False)
    if spec.dtype in _NARROW and not np.array_equal(narrowed, values):
        raise RequestInvalid(
            f"input '{spec.name}' has a value that does not fit {DATATYPES[spec.dtype]}",
            remedy="send values in its range",
        )
    return narrowed
