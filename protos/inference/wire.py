"""Inference requests and answers on the wire without a copy of their tensors through protobuf.

Raw contents are top-level fields, so a request is split into its raw contents, as views, and its head, which is
everything else, for protobuf to parse; an answer is its head, serialized, and the raw contents after it. Both are
ordinary messages to whoever sends or receives them.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from protos.inference.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from protos.wire import read_varint, varint

MAX_FIELDS = 4096
"""Top-level fields of a request: each input and output has one or two. More would be a small message that makes a large
heap."""

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_RAW_INPUT_TAG = (ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3) | _LENGTH_DELIMITED
_RAW_OUTPUT_TAG = (ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3) | _LENGTH_DELIMITED
_ANSWER_TAG = (ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3) | _LENGTH_DELIMITED


def split(message: bytes) -> tuple[bytes, list[memoryview]]:
    """Take a request apart.

    Returns:
        The head: a `ModelInferRequest` without `raw_input_contents`, on the wire; and those, in order, as views into
        `message`.

    Raises:
        DecodeError: It is no message, is cut off, or has more than `MAX_FIELDS` fields.
    """
    view = memoryview(message)
    head: list[memoryview] = []
    raw: list[memoryview] = []
    position = kept = fields = 0
    while position < len(view):
        start = position
        tag, position = read_varint(view, position)
        begin, position = _content(view, tag, position)
        fields += 1
        if fields > MAX_FIELDS:
            raise DecodeError(f"more than {MAX_FIELDS} fields")
        if tag == _RAW_INPUT_TAG:
            head.append(view[kept:start])
            raw.append(view[begin:position])
            kept = position
    head.append(view[kept:])
    return b"".join(head), raw


def before_raw_input(head: bytes, size_bytes: int) -> bytes:
    """What a request that ends with its one raw content has before it: its head, and how long the content is.

    Args:
        head: As `split` gives it.
        size_bytes: Of the content.
    """
    return b"".join((head, bytes((_RAW_INPUT_TAG,)), varint(size_bytes)))


def join(head: bytes, raw: Iterable[memoryview | bytes], *, in_stream: bool = False) -> bytes:
    """An answer on the wire; each raw content is copied once.

    Args:
        head: A `ModelInferResponse` without `raw_output_contents`, on the wire.
        raw: Those, in order, as bytes.
        in_stream: Whether it is put into a `ModelStreamInferResponse`.
    """
    pieces: list[memoryview | bytes] = [head]
    for content in raw:
        pieces += (bytes((_RAW_OUTPUT_TAG,)), varint(len(content)), content)
    if in_stream:
        pieces[:0] = (bytes((_ANSWER_TAG,)), varint(sum(map(len, pieces))))
    return b"".join(pieces)


def _content(view: memoryview, tag: int, position: int) -> tuple[int, int]:
    """Where a field's content begins and ends."""
    kind = tag & 7
    if kind == _LENGTH_DELIMITED:
        length, position = read_varint(view, position)
    elif kind == _VARINT:
        return position, read_varint(view, position)[1]
    elif kind in (_FIXED64, _FIXED32):
        length = 8 if kind == _FIXED64 else 4
    else:
        raise DecodeError(f"field {tag >> 3} has wire type {kind}")
    if position + length > len(view):
        raise DecodeError(f"field {tag >> 3} ends at byte {position + length}, the message has {len(view)}")
    return position, position + length
