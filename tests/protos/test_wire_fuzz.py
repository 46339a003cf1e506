"""The frame's wire format against anything that may come over it."""

from __future__ import annotations

import contextlib

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import wire
from protos.monocoque.v1 import camera_pb2, stream_pb2

u32, u64, i64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
headers = st.builds(
    camera_pb2.FrameHeader,
    camera_id=text,
    sequence=u64,
    capture_time_ns=i64,
    client_send_time_ns=i64,
    encoding=st.integers(-(2**31), 2**31 - 1),
    width=u32,
    height=u32,
    stride_bytes=u32,
    max_age_ns=u64,
    client_dropped=u32,
)
handles = st.none() | st.builds(stream_pb2.SlotHandle, slot=u32, generation=u64, size_bytes=u64)
requests = st.builds(stream_pb2.StreamFramesRequest, frame=headers, slot=handles)


@given(request=requests, pixels=st.binary(max_size=5000))
@settings(max_examples=200)
def test_what_is_joined_is_split_the_same_and_is_plain_protobuf(
    request: stream_pb2.StreamFramesRequest, pixels: bytes
) -> None:
    message = wire.join(request, pixels)
    found, view = wire.split(message)
    assert (found, bytes(view)) == (request, pixels)
    request.pixels = pixels
    assert stream_pb2.StreamFramesRequest.FromString(message) == request


@given(message=st.binary(max_size=300))
@settings(max_examples=1000)
def test_any_bytes_are_a_message_or_a_decode_error(message: bytes) -> None:
    with contextlib.suppress(DecodeError):
        request, pixels = wire.split(message)
        assert request.ByteSize() + len(pixels) <= 10 * len(message) + 10
        assert not request.pixels


@given(request=requests, pixels=st.binary(max_size=300), data=st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_another_one_or_a_decode_error(
    request: stream_pb2.StreamFramesRequest, pixels: bytes, data: st.DataObject
) -> None:
    message = bytearray(wire.join(request, pixels))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(message)))
    with contextlib.suppress(DecodeError):
        _, view = wire.split(bytes(message[:cut]))
        assert len(view) <= cut
