"""ONNX files without their weights in memory: read through a memory map, written one weight at a time.

An ONNX file is a protobuf message (https://protobuf.dev/programming-guides/encoding): a graph in a model, weights in
the graph, a weight's bytes in a field of their own. Protobuf's library reads and writes messages whole, which takes a
file's size twice; here only the bytes of weights are stepped over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import onnx
import onnx_ir as ir

from build_engine.fuse.mapped import forget_pages

GRAPH_FIELD = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
INITIALIZER_FIELD = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
RAW_DATA_FIELD = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number

LARGE_BYTES = 1024
"""Smaller weights stay in the message: shapes and scales, which shape inference wants to see."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types


def without_weights(data: memoryview, location: str) -> onnx.ModelProto:
    """The model of a file whose large weights are references into that file, as external data is.

    Args:
        data: The file.
        location: What the references call it.

    Raises:
        ValueError: It is no protobuf message, or is cut short.
    """

    def tensor(start: int, stop: int) -> bytes:
        for number, kind, at, begin, end in _fields(data, start, stop):
            if number == RAW_DATA_FIELD and kind == _LENGTH and end - begin >= LARGE_BYTES:
                reference = _reference(location, begin, end - begin)
                return bytes(data[start:at]) + bytes(data[end:stop]) + reference.SerializeToString()
        return bytes(data[start:stop])

    def graph(start: int, stop: int) -> bytes:
        return _replaced(data, start, stop, INITIALIZER_FIELD, tensor)

    return onnx.ModelProto.FromString(_replaced(data, 0, len(data), GRAPH_FIELD, graph))


def _replaced(data: memoryview, start: int, stop: int, field: int, replacement: Callable[[int, int], bytes]) -> bytes:
    """A message in which every embedded message of one field is `replacement(its start, its stop)`."""
    parts = []
    kept = start
    for number, kind, at, begin, end in _fields(data, start, stop):
        if number == field and kind == _LENGTH:
            inner = replacement(begin, end)
            parts += [bytes(data[kept:at]), _prefix(field, len(inner)), inner]
            kept = end
    return b"".join([*parts, bytes(data[kept:stop])])


def _reference(location: str, offset: int, length: int) -> onnx.TensorProto:
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return onnx.TensorProto(
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key=key, value=value) for key, value in entries.items()],
    )


def _fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Fields of a message: number, wire type, where its tag starts, where its content starts and ends."""
    at = start
    while at < stop:
        tag, begin = _varint(data, at, stop)
        kind = tag & 7
        if kind == _LENGTH:
            length, begin = _varint(data, begin, stop)
            end = begin + length
        elif kind == _VARINT:
            _, end = _varint(data, begin, stop)
        elif kind in (_FIXED64, _FIXED32):
            end = begin + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if end > stop:
            raise ValueError(f"the field at byte {at} ends at {end}, its message at {stop}")
        yield tag >> 3, kind, at, begin, end
        at = end


def _varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} does not end")


def _prefix(field: int, length: int) -> bytes:
    """Tag and length of an embedded message or bytes."""
    return _number(field << 3 | _LENGTH) + _number(length)


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def write_inside(model: ir.Model, file: BinaryIO) -> None:
    """Write a model with its weights inside: less than 2 GiB in all, or no reader takes it."""
    light, weights = _split(model)
    heads = [_head(value) + _prefix(RAW_DATA_FIELD, _tensor(value).nbytes) for value in weights]
    lengths = [len(head) + _tensor(value).nbytes for head, value in zip(heads, weights, strict=True)]
    prefixes = [_prefix(INITIALIZER_FIELD, length) for length in lengths]
    graph = light.graph.SerializeToString(deterministic=True)
    light.ClearField("graph")
    file.write(light.SerializeToString(deterministic=True))
    file.write(_prefix(GRAPH_FIELD, len(graph) + sum(lengths) + sum(map(len, prefixes))) + graph)
    for prefix, head, value in zip(prefixes, heads, weights, strict=True):
        file.write(prefix + head)
        _write_bytes(value, file)


def write_outside(model: ir.Model, file: BinaryIO, data: BinaryIO, location: str) -> None:
    """Write a model, and its large weights to a second file.

    Args:
        model: The model.
        file: For the model.
        data: For the weights.
        location: Name of the second file, which lies beside the first.
    """
    light, weights = _split(model)
    for value in weights:
        reference = _reference(location, data.tell(), _tensor(value).nbytes)
        light.graph.initializer.add().MergeFromString(_head(value) + reference.SerializeToString())
        _write_bytes(value, data)
    file.write(light.SerializeToString(deterministic=True))


def _split(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.Value]]:
    """The message without the large weights of its graph, and these."""
    light = model.clone()
    large = []
    for name, value in list(light.graph.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes >= LARGE_BYTES:
            large.append(light.graph.initializers.pop(name))
    return ir.serde.serialize_model(light), large


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None  # noqa: S101 (an initializer)
    return value.const_value


def _head(value: ir.Value) -> bytes:
    """A weight's message, less its bytes."""
    tensor = _tensor(value)
    head = onnx.TensorProto(name=value.name or "", data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    return head.SerializeToString()


def _write_bytes(value: ir.Value, file: BinaryIO) -> None:
    tensor = _tensor(value)
    if isinstance(tensor, ir.Tensor | ir.ExternalTensor):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())
    forget_pages([value])
