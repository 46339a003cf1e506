"""Any `Open` is accepted within the limits, or refused with a reason; nothing else comes of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.bundle import Bundle
from protos import wire
from protos.monocoque.v1 import camera_pb2, stream_pb2
from server.errors import StreamEnded
from server.shared_memory.region import slots_layout
from server.stream.layout import largest_frame_bytes
from server.stream.opening import Limits, check_open, credits_of, reserved_bytes, slots_of

LIMITS = Limits(
    max_width=128, max_height=128, max_streams=4, max_cameras=8, max_watchers=1, memory_budget_bytes=10_000_000
)
sizes = st.one_of(st.integers(0, 130), st.integers(0, 2**32 - 1))
names = st.one_of(st.sampled_from(["front", "rear", "", ".."]), st.text(max_size=70).filter(lambda t: t.isprintable()))
cameras = st.builds(
    camera_pb2.Camera,
    id=names,
    width=sizes,
    height=sizes,
    encoding=st.integers(-1, 20),
    period_ns=st.integers(0, 2**64 - 1),
)
clocks = st.builds(stream_pb2.Clock, kind=st.integers(-1, 5), error_ns=st.integers(0, 2**64 - 1), boot_id=names)
opens = st.builds(
    stream_pb2.Open,
    cameras=st.lists(cameras, max_size=4),
    policy=st.integers(-1, 4),
    clock=clocks,
    priority=st.integers(-(2**31), 2**31 - 1),
    max_age_ns=st.integers(0, 2**64 - 1),
    tensors=st.lists(st.sampled_from(["drivable", "nothing"]), max_size=2),
    shared_memory=st.booleans(),
)


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(request=opens)
def test_an_open_is_within_the_limits_or_refused(bundle: Bundle, request: stream_pb2.Open) -> None:
    with contextlib.suppress(StreamEnded):
        check_open(request, bundle.manifest, LIMITS)
        assert request.cameras
        assert len({camera.id for camera in request.cameras}) == len(request.cameras)
        for camera in request.cameras:
            assert 0 < camera.width <= LIMITS.max_width
            assert 0 < camera.height <= LIMITS.max_height
            assert largest_frame_bytes(camera.width, camera.height) <= LIMITS.max_frame_bytes
        assert credits_of(request) >= 1
        reserved = reserved_bytes(request)
        assert reserved >= sum(largest_frame_bytes(camera.width, camera.height) for camera in request.cameras)
        if request.shared_memory:
            assert reserved == slots_layout(request.cameras, slots_of(request))[1]


@settings(max_examples=200)
@given(request=opens, data=st.data())
def test_a_damaged_open_is_another_one_or_a_decode_error(request: stream_pb2.Open, data: st.DataObject) -> None:
    message = bytearray(stream_pb2.StreamFramesRequest(open=request).SerializeToString())
    message[data.draw(st.integers(0, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DecodeError):
        wire.split(bytes(message))
