from __future__ import annotations

import asyncio

import pytest

from protos.monocoque.v1.stream_pb2 import StreamFramesResponse
from server import outbox
from server.outbox import Outbox


async def test_messages_keep_their_order_and_credits_go_first() -> None:
    box = Outbox()
    box.put(b"one")
    box.put(b"two")
    box.add_credit("front")
    box.add_credit("front")
    box.finish()
    first = await box.next()
    assert first is not None
    credit = StreamFramesResponse.FromString(first).credit
    assert (credit.camera_id, credit.frames) == ("front", 2)
    assert [await box.next() for _ in range(3)] == [b"one", b"two", None]


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
