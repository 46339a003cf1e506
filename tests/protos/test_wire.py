import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from protos import wire
from protos.monocoque.v1.camera_pb2 import FrameHeader
from protos.monocoque.v1.stream_pb2 import StreamFramesRequest

headers = st.builds(
    FrameHeader,
    camera_id=st.text(max_size=20),
    sequence=st.integers(0, 2**64 - 1),
    capture_time_ns=st.integers(-(2**63), 2**63 - 1),
    width=st.integers(0, 2**32 - 1),
)


@given(header=headers, pixels=st.binary(max_size=40_000))
def test_any_protobuf_client_reads_and_writes_the_same_message(header: FrameHeader, pixels: bytes) -> None:
    laid_by_hand = wire.join(StreamFramesRequest(frame=header), pixels)
    assert StreamFramesRequest.FromString(laid_by_hand) == StreamFramesRequest(frame=header, pixels=pixels)
    by_protobuf = StreamFramesRequest(frame=header, pixels=pixels).SerializeToString()
    for message in (laid_by_hand, by_protobuf):
        request, found = wire.split(message)
        assert request == StreamFramesRequest(frame=header)
        assert bytes(found) == pixels


@given(header=headers, pixels=st.binary(max_size=300), piece_bytes=st.integers(0, 320))
def test_pieces_are_ordinary_messages_that_add_up(header: FrameHeader, pixels: bytes, piece_bytes: int) -> None:
    first, *others = map(
        StreamFramesRequest.FromString,
        wire.pieces(StreamFramesRequest(frame=header), memoryview(pixels), piece_bytes),
    )
    assert first.frame.size_bytes == (len(pixels) if others else 0)
    first.frame.ClearField("size_bytes")
    assert first.frame == header
    assert b"".join(message.pixels for message in (first, *others)) == pixels
    assert all(message == StreamFramesRequest(pixels=message.pixels) for message in others)
    assert all(len(message.pixels) <= piece_bytes for message in (first, *others) if others)


def test_pixels_are_a_view_of_the_message() -> None:
    message = wire.join(StreamFramesRequest(frame=FrameHeader(camera_id="a")), b"1234")
    _, pixels = wire.split(message)
    assert pixels.obj is message


@given(header=headers, pixels=st.binary(min_size=1, max_size=300), data=st.data())
def test_a_message_cut_off_anywhere_inside_is_refused_or_is_another_whole_message(
    header: FrameHeader, pixels: bytes, data: st.DataObject
) -> None:
    message = wire.join(StreamFramesRequest(frame=header), pixels)
    cut = message[: data.draw(st.integers(1, len(message) - 1))]
    try:
        request, found = wire.split(cut)
    except DecodeError:
        return
    assert request == StreamFramesRequest(frame=header)  # the cut fell exactly between header and pixels
    assert len(found) == 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(noise: bytes) -> None:
    with contextlib.suppress(DecodeError):
        wire.split(noise)


def test_fields_after_the_pixels_are_refused() -> None:
    message = wire.join(StreamFramesRequest(frame=FrameHeader()), b"12")
    with pytest.raises(DecodeError, match="bytes follow the pixels"):
        wire.split(message + StreamFramesRequest(frame=FrameHeader(width=3)).SerializeToString())
