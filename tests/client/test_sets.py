"""Surround sets with the real server: with and without async."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import client
from tests.client.test_with_server import Serving, camera, serving

assert serving  # the fixture
MS = 1_000_000
NAMES = ("front", "left", "right")
OPTICS = client.Intrinsics(64.0, 64.0, 32.0, 16.0)


@pytest.fixture
def cameras() -> Iterator[list[client.Camera]]:
    place = client.Mounting(0.0, 0.0, 1.5, 0.0, 0.0, 0.0)
    yield [replace(camera(name=name), intrinsics=OPTICS, mounting=place) for name in NAMES]


async def test_sets_are_followed_beside_their_results(serving: Serving, cameras: list[client.Camera]) -> None:
    pixels = np.full((cameras[0].height, cameras[0].width, 3), 200, np.uint8)
    async with (
        client.connect(serving.address) as server,
        server.stream(cameras, policy="replay", sets=True, set_tolerance_ns=5 * MS) as stream,
    ):
        for turn in (1, 2, 3):
            for name in NAMES[: 2 if turn == 3 else 3]:
                await stream.send(client.Frame(name, pixels, capture_time_ns=turn * 33 * MS))
        await stream.finish()
        results = [result async for result in stream]
        sets = [found async for found in stream.sets()]
    assert [found.number for found in sets] == [1, 2, 3]
    assert [found.cause for found in sets] == ["complete", "complete", "ended"]
    assert [found.missing for found in sets] == [(), (), ("right",)]
    assert [result.set_number for result in results] == [1, 1, 1, 2, 2, 2, 3, 3]
    assert not any(result.schema_changed for result in results)
    assert [frame.camera_id for frame in sets[0].frames] == list(NAMES)
    for found in sets:
        assert found.objects
        assert all(set(item.camera_ids) == {frame.camera_id for frame in found.frames} for item in found.objects)


def test_sets_without_async(serving: Serving, cameras: list[client.Camera]) -> None:
    pixels = np.full((cameras[0].height, cameras[0].width, 3), 200, np.uint8)
    with (
        client.connect_sync(serving.address) as server,
        server.stream(cameras, policy="replay", sets=True) as stream,
    ):
        for name in NAMES:
            stream.send(client.Frame(name, pixels, capture_time_ns=33 * MS))
        stream.finish()
        (found,) = stream.sets()
        assert [result.set_number for result in stream] == [1, 1, 1]
    assert found.frames[0].status == "ok"


async def test_a_stream_names_its_engine(serving: Serving, cameras: list[client.Camera]) -> None:
    async with client.connect(serving.address) as server:
        name = (await server.engine()).name
        async with server.stream(cameras, engine=name) as stream:
            assert stream.opened.engine_digest
        with pytest.raises(client.Rejected, match="no engine 'other' is served"):
            async with server.stream(cameras, engine="other"):
                pass
