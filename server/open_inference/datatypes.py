"""Element types by the protocol's names and by ours."""

from __future__ import annotations

import numpy as np

from protos.inference import model_config_pb2

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The protocol's name of each element type that crosses an engine's boundary. BF16 and BYTES are none of those."""


def config_type(dtype: str) -> model_config_pb2.DataType.ValueType:
    """The element type in a model's configuration.

    Args:
        dtype: Its numpy name.
    """
    return model_config_pb2.DataType.Value(f"TYPE_{DATATYPES[dtype]}")


def make_truth_values(content: memoryview) -> None:
    """Make bytes that a client sent as BOOL 0 or 1, in place: any other is no truth value to an engine."""
    values = np.frombuffer(content, np.uint8)
    np.minimum(values, 1, out=values)
