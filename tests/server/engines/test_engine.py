"""The engine behind the streams: what it says of itself, and whether it is the one that was built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engine.bundle import ReferenceCase
from protos.monocoque.v1 import result_pb2 as pb
from protos.monocoque.v1 import stream_pb2
from server.errors import StartFailed
from tests.server.bundles import HEIGHT, WIDTH, write_bundle
from tests.server.conftest import Engine, Running, serving
from tests.server.observe.test_metrics import samples
from tests.server.raw_client import camera, frame


def reference(score: float) -> ReferenceCase:
    """What the detector gives for a frame of value 200, or something else."""
    outputs: Mapping[str, npt.NDArray[Any]] = {
        "scores": np.full((1, 2), score, np.float32),
        "classes": np.array([[0, 1]], np.int64),
        "boxes": np.array([[[0, 0, 16, 16], [8, 4, 24, 12]]], np.float32),
        "distances": np.array([[10, 20]], np.float32),
        "drivable": np.full((1, 1, HEIGHT, WIDTH), score, np.float32),
    }
    images = np.full((1, HEIGHT, WIDTH, 3), 200, np.uint8)
    return ReferenceCase("reference/0.npz", {"images": images}, dict(outputs))


async def test_an_engine_that_agrees_with_its_reference_is_served(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", reference=reference(200 / 255))
    async with serving(bundle) as running:
        await running.still_serves()


async def test_an_engine_that_computes_something_else_is_not_served_unless_told_to(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", reference=reference(0.1))
    with pytest.raises(StartFailed, match="disagrees with the float graph") as caught:
        async with serving(bundle):
            pass
    assert "--no-self-check" in caught.value.remedy
    async with serving(bundle, self_check=False) as running:
        await running.still_serves()


async def test_a_fallback_is_said_in_every_result_and_in_the_metrics(bundle_path: Path, engine: Engine) -> None:
    engine.degraded = "rtx is not available: no GPU"
    async with serving(bundle_path, engine.open) as running:
        stream = await running.open_one("front")
        await stream.send(frame(1))
        await stream.send(frame(2, data=b"short"))
        results = await stream.results(2)
        assert {result.degraded for result in results} == {"rtx is not available: no GPU"}
        assert {result.status for result in results} == {pb.STATUS_OK, pb.STATUS_REFUSED}
        call = running.channel.unary_unary("/monocoque.v1.CameraStreamService/GetEngine")
        assert stream_pb2.GetEngineResponse.FromString(await call(b"")).degraded == engine.degraded
        assert samples(await running.metrics(), "monocoque_engine_degraded") == {("quarters", "1.0"): 1}


async def test_memory_is_told_by_kind_and_the_gpu_apart(bundle_path: Path, engine: Engine) -> None:
    engine.memory = {"weights": 100, "activations": 20, "device_total": 1000, "device_free": 400}
    async with serving(bundle_path, engine.open) as running:
        stream = await running.open_one("front")
        await stream.send(frame(1))
        (result,) = await stream.results(1)
        assert dict(result.memory.engine_bytes) == {"weights": 100, "activations": 20}
        page = await running.metrics()
        assert samples(page, "monocoque_engine_memory_bytes") == {
            ("quarters", "1.0", "weights"): 100,
            ("quarters", "1.0", "activations"): 20,
        }
        assert samples(page, "monocoque_gpu_memory_bytes") == {("total",): 1000, ("used",): 600}


async def test_each_engine_has_series_of_its_own_as_long_as_it_is_served(tmp_path: Path, engine: Engine) -> None:
    for name in ("front", "rear"):
        write_bundle(tmp_path / name, name=name)
    engine.memory = {"weights": 100}
    async with serving((), engine.open, repository=tmp_path) as running:

        async def engines() -> set[str]:
            page = await running.metrics()
            # The last one is called so by the parser: OpenMetrics wants the ending, Triton has none.
            names = ("monocoque_engine_memory_bytes", "monocoque_engine_degraded", "nv_inference_count_total")
            found = [{labels[0] for labels in samples(page, name)} for name in names]
            found.append({labels[1] for labels in samples(page, "monocoque_build_info")})
            assert all(one == found[0] for one in found)
            return found[0]

        assert await engines() == {"front", "rear"}
        await running.server.catalogue.unload("front")
        assert await engines() == {"rear"}
        await running.server.catalogue.load("front")
        assert await engines() == {"front", "rear"}


async def test_without_a_gpu_there_is_no_gpu_memory(running: Running) -> None:
    assert samples(await running.metrics(), "monocoque_gpu_memory_bytes") == {}


@pytest.mark.parametrize(("wanted", "largest"), [(1, 1), (4, 4), (100, 8)])
async def test_a_batch_is_no_larger_than_the_bundle_allows(
    bundle_path: Path, engine: Engine, wanted: int, largest: int
) -> None:
    async with serving(bundle_path, engine.open, max_batch=wanted) as running:
        engine.hold = True
        stream = running.stream()
        names = [f"c{index}" for index in range(10)]
        await stream.open([camera(name) for name in names])
        await stream.send(frame(1, "c0"))
        await engine.entered()
        for name in names:
            await stream.send(frame(2, name))
        await running.until(lambda: sum(running.server.mailbox.depths().values()) == 10)
        engine.free()
        await stream.results(11)
        assert max(len(batch) for batch in engine.batches) == largest
