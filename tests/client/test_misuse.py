"""What a developer gets wrong first: each mistake is named where it was made, and nothing waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import client
from client.errors import ClientError
from client.exchange import Exchange
from tests.client.scripted import Script, serving, well_behaved

PATIENCE_SECONDS = 30
FRONT = client.Camera("front", width=32, height=16, encoding="rgb8")
PIXELS = np.zeros((16, 32, 3), np.uint8)


async def answer_to(frame: client.Frame, **options: Any) -> client.Result:
    async with (
        serving(Script(well_behaved)) as address,
        client.connect(address) as server,
        server.stream([FRONT], **options) as stream,
    ):
        stream.submit(frame)
        return await asyncio.wait_for(anext(stream), PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capture_time_ns": 1.5e9}, "capture_time_ns is 1500000000.0, a float; give an int"),
        ({"max_age_ns": 0.1}, "max_age_ns is 0.1, a float; give an int"),
        ({"max_age_ns": 2**64}, "max_age_ns is 18446744073709551616; give a positive age"),
        ({"stride_bytes": 96.0}, "stride_bytes is 96.0, a float; give an int"),
        ({"stride_bytes": -96}, "stride_bytes is -96; give the bytes from one row to the next"),
        ({"color_matrix": "bt2020"}, "color_matrix is 'bt2020'; give one of bt601, bt709, or None"),
        ({"color_range": "video"}, "color_range is 'video'; give one of full, limited, or None"),
        ({"pixels": None}, "pixels are NoneType, neither bytes nor an array; could the image not be read?"),
        ({"pixels": [[0, 0]]}, "pixels are list, neither bytes nor an array"),
    ],
)
async def test_a_frame_that_makes_no_sense_is_refused_when_it_is_submitted(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(client.FrameInvalid) as caught:
        await answer_to(client.Frame(**{"camera_id": "front", "pixels": PIXELS, **fields}))
    assert str(caught.value).startswith(f"frame of camera front: {message}")


async def test_times_may_be_numpy_integers() -> None:
    result = await answer_to(client.Frame("front", PIXELS, capture_time_ns=np.int64(5), max_age_ns=np.int64(10**9)))
    assert (result.status, result.capture_time_ns) == ("ok", 5)


async def test_a_frame_that_cannot_be_put_on_the_wire_ends_the_stream_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(Exchange, "_messages", broken)
    with pytest.raises(ClientError, match="a frame cannot be sent: ValueError: no such luck"):
        await answer_to(client.Frame("front", PIXELS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "fast"}, "policy 'fast' is not one of live, replay"),
        ({"priority": 10**12}, "does not fit its field: Value out of range: 1000000000000"),
        ({"max_age_ns": -5}, "does not fit its field: Value out of range: -5"),
    ],
)
async def test_a_stream_that_makes_no_sense_is_refused_before_anything_is_sent(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(client.FrameInvalid, match=message):
        await answer_to(client.Frame("front", PIXELS), **options)


@pytest.mark.parametrize("read", [anext, lambda stream: anext(stream.sets())], ids=["results", "sets"])
async def test_a_stream_that_was_never_opened_is_not_waited_for(read: Callable[[client.Stream], Any]) -> None:
    async with serving(Script(well_behaved)) as address, client.connect(address) as server:
        with pytest.raises(client.StreamClosed, match="use it inside `async with`"):
            await asyncio.wait_for(read(server.stream([FRONT])), PATIENCE_SECONDS)


def test_an_image_or_encoding_that_there_is_not_is_refused() -> None:
    with pytest.raises(client.FrameInvalid, match="encoding 'webp' is not one of jpeg, png"):
        client.encode(PIXELS, "webp")  # type: ignore[arg-type]
    with pytest.raises(client.FrameInvalid, match="an image of 0x0 has no pixels"):
        client.encode(np.zeros((0, 0, 3), np.uint8), "jpeg")
