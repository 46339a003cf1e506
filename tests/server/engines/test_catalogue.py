"""Several engines by name and version, and requests of tensors among the cameras' frames."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from server.app import Server
from server.engines.catalogue import version_order
from server.engines.lane import EngineState
from server.errors import EngineNotFound, EngineNotReady, InferenceFailed, RequestInvalid, RequestLate, StartFailed
from server.settings import Settings
from tests.server.bundles import HEIGHT, WIDTH, write_bundle
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import frame

IMAGES = {"images": np.full((2, HEIGHT, WIDTH, 3), 51, np.uint8)}


async def test_a_request_of_tensors_is_computed_by_the_real_engine(real: Running) -> None:
    lane = real.server.catalogue.find("quarters")
    inferred = await lane.infer(IMAGES)
    np.testing.assert_allclose(inferred.outputs["scores"], np.full((2, 2), 0.2), rtol=1e-6)
    assert set(inferred.outputs) == {"scores", "classes", "boxes", "distances", "drivable"}
    assert inferred.batch == 2
    assert min(inferred.queue_ns, inferred.compute_infer_ns, inferred.compute_output_ns) >= 0
    again = await lane.infer({"images": IMAGES["images"][:1]})
    assert again.outputs["scores"].shape == (1, 2)
    assert inferred.outputs["scores"].shape == (2, 2)  # its arrays are its own


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input images is missing"),
        (IMAGES | {"mask": np.zeros(1)}, "no input mask"),
        ({"images": IMAGES["images"].astype(np.float32)}, "input images is float32"),
        ({"images": IMAGES["images"][:, :4]}, r"input images has shape \[2, 4, 32, 3\]"),
        ({"images": np.zeros((9, HEIGHT, WIDTH, 3), np.uint8)}, "a batch of 9, the engine takes 1 to 8"),
        ({"images": np.zeros((0, HEIGHT, WIDTH, 3), np.uint8)}, "a batch of 0, the engine takes 1 to 8"),
    ],
)
async def test_wrong_inputs_are_named(real: Running, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(RequestInvalid, match=message):
        await real.server.catalogue.find().infer(inputs)


async def test_what_goes_wrong_in_the_engine_is_the_requests_answer(running: Running, engine: Engine) -> None:
    engine.fail = "no luck"
    with pytest.raises(InferenceFailed, match="no luck"):
        await running.server.catalogue.find().infer(IMAGES)
    engine.fail = ""
    await running.still_serves()


async def test_requests_and_frames_take_turns(running: Running, engine: Engine) -> None:
    lane = running.server.catalogue.find()
    engine.hold = True
    stream = await running.open_one("front")
    first = asyncio.ensure_future(lane.infer(IMAGES))
    await engine.entered()
    waiting = [asyncio.ensure_future(lane.infer(IMAGES)) for _ in range(3)]
    await stream.send(frame(1))
    await running.until(lambda: sum(lane.mailbox.depths().values()) == 4)
    engine.free()
    await asyncio.gather(first, *waiting)
    await stream.results(1)
    assert [len(batch) for batch in engine.batches].index(1) < 4  # the frame did not wait for every request


async def test_a_request_that_waited_too_long_is_not_computed(running: Running, engine: Engine) -> None:
    lane = running.server.catalogue.find()
    engine.hold = True
    first = asyncio.ensure_future(lane.infer(IMAGES))
    await engine.entered()
    late = asyncio.ensure_future(lane.infer(IMAGES, timeout_ns=1))
    gone = asyncio.ensure_future(lane.infer(IMAGES))
    await running.until(lambda: sum(lane.mailbox.depths().values()) == 2)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    engine.free()
    await first
    with pytest.raises(RequestLate, match="longer than its timeout"):
        await late
    await running.still_serves()
    assert [len(batch) for batch in engine.batches] == [2, 1]


async def test_bundles_are_served_by_name_and_version(tmp_path: Path) -> None:
    for path, name, version in (("a", "left", "1.9"), ("b", "left", "1.10"), ("c/1", "right", "1")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_bundle(tmp_path / path, name=name, version=version)
    extra = write_bundle(tmp_path.parent / "extra", name="extra")
    async with serving(extra, repository=tmp_path) as running:
        catalogue = running.server.catalogue
        assert catalogue.find().name == "extra"
        assert catalogue.find("left").version == "1.10"
        assert catalogue.find("left", "1.9").version == "1.9"
        for lane in catalogue.lanes:
            assert (await lane.infer(IMAGES)).digest == lane.served.bundle.digest
        with pytest.raises(EngineNotFound, match="no engine 'left 2'") as caught:
            catalogue.find("left", "2")
        assert "left 1.9, left 1.10, right 1" in caught.value.remedy

        gone = catalogue.find("left", "1.10")
        await catalogue.unload("left", "1.10")
        with pytest.raises(EngineNotReady, match="it was unloaded"):
            await gone.infer(IMAGES)
        assert catalogue.find("left").version == "1.9"
        states = {(entry.name, entry.version): entry.state for entry in catalogue.index()}
        assert states["left", "1.10"] is EngineState.UNAVAILABLE
        assert (await catalogue.load("left")).version == "1.10"
        write_bundle(tmp_path / "new", name="new")  # put there while the server runs
        assert (await catalogue.load("new")).name == "new"
        with pytest.raises(EngineNotFound, match="no bundle 'other' is known"):
            await catalogue.load("other")


async def test_two_bundles_of_one_name_and_version_are_a_mistake(tmp_path: Path) -> None:
    paths = (write_bundle(tmp_path / "a"), write_bundle(tmp_path / "b"))
    server = Server(Settings(bundle=paths, port=0, metrics_port=0))
    with pytest.raises(StartFailed, match=r"two bundles are quarters 1\.0"):
        await server.start()


async def test_a_repository_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises((StartFailed, EngineError), match="no directory at"):
        await Server(Settings(repository=tmp_path / "none", port=0, metrics_port=0)).start()


def test_versions_sort_as_people_count() -> None:
    versions = ["1.10", "1.9", "2", "1.9-rc1", "1.9.1"]
    assert sorted(versions, key=version_order) == ["1.9", "1.9-rc1", "1.9.1", "1.10", "2"]
