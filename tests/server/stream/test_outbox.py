from __future__ import annotations

import asyncio

import pytest

from protos.monocoque.v1.result_pb2 import Result
from protos.monocoque.v1.stream_pb2 import StreamFramesResponse
from server.stream import outbox
from server.stream.outbox import Outbox


async def test_messages_keep_their_order_and_credits_are_merged_behind_them() -> None:
    box = Outbox()
    box.add_credit("front")
    box.put(b"one")
    box.put(b"two")
    box.add_credit("front")
    box.finish()
    assert [await box.next() for _ in range(2)] == [b"one", b"two"]
    last = await box.next()
    assert last is not None
    credit = StreamFramesResponse.FromString(last).credit
    assert (credit.camera_id, credit.frames) == ("front", 2)
    assert await box.next() is None


async def test_credits_go_with_the_last_message_where_the_client_takes_them_so() -> None:
    box = Outbox(joins=True)
    first, second = (StreamFramesResponse(result=Result(camera_id=name)).SerializeToString() for name in ("a", "b"))
    for camera_id in ("front", "front", "rear"):
        box.add_credit(camera_id)
    box.put(first)
    box.put(second)
    box.finish()
    assert await box.next() == first  # whoever falls behind in reading is given no leave to send
    joined = await box.next()
    assert joined is not None
    message = StreamFramesResponse.FromString(joined)
    assert message.result.camera_id == "b"
    assert {credit.camera_id: credit.frames for credit in message.credits} == {"front": 2, "rear": 1}
    assert await box.next() is None


async def test_a_credit_alone_wakes_who_waits() -> None:
    box = Outbox()
    waiting = asyncio.ensure_future(box.next())
    await asyncio.sleep(0)
    box.add_credit("front")
    message = await waiting
    assert message is not None
    assert StreamFramesResponse.FromString(message).credit.frames == 1


async def test_who_waits_is_woken_by_what_comes_and_by_the_end() -> None:
    box = Outbox()
    waiting = asyncio.ensure_future(box.next())
    await asyncio.sleep(0)
    box.put(b"one")
    assert await waiting == b"one"
    waiting = asyncio.ensure_future(box.next())
    await asyncio.sleep(0)
    box.finish()
    assert await waiting is None


async def test_the_number_of_messages_and_their_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREAD_MESSAGES", 3)
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 10)
    many, large = Outbox(), Outbox()
    for _ in range(3):
        many.put(b"x")
    assert not many.full.is_set()
    many.put(b"x")
    assert many.full.is_set()
    large.put(b"x" * 10)
    assert not large.full.is_set()
    await large.next()
    large.put(b"x" * 10)
    assert not large.full.is_set()
    large.put(b"x")
    assert large.full.is_set()
