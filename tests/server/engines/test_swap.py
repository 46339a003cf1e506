"""Another bundle takes an engine's place while its streams go on, or nothing changes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.bundle import Bundle
from protos.monocoque.v1 import admin_pb2, stream_pb2
from protos.monocoque.v1.result_pb2 import STATUS_OK, STATUS_REFUSED
from server.admin import is_local
from server.engines.memory_fit import available_bytes, check_fit
from server.errors import SwapRefused
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, Running, serving
from tests.server.engines.test_engine import reference
from tests.server.raw_client import frame

SWAP = "/monocoque.v1.AdminService/SwapEngine"


async def swap(running: Running, **fields: Any) -> admin_pb2.SwapEngineResponse:
    call = running.channel.unary_unary(SWAP)
    answer = await call(admin_pb2.SwapEngineRequest(**fields).SerializeToString())
    return admin_pb2.SwapEngineResponse.FromString(answer)


async def refusal(running: Running, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await swap(running, **fields)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("policy", [stream_pb2.POLICY_LIVE, stream_pb2.POLICY_REPLAY])
async def test_no_frame_is_lost_and_each_result_says_which_engine_computed_it(
    bundle_path: Path, tmp_path: Path, engine: Engine, policy: Any
) -> None:
    new = write_bundle(tmp_path / "new", version="2.0", labels=("night", "day"))
    async with serving(bundle_path, engine.open) as running:
        stream = running.stream()
        opened = await stream.open([stream_pb2.Open().cameras.add(id="front", width=64, height=32, encoding=3)])
        engine.hold = True
        await stream.send(frame(1))
        await engine.entered()  # the old engine has a batch
        swapping = asyncio.ensure_future(swap(running, bundle=str(new)))
        await running.until(lambda: running.server.catalogue.find().version == "2.0")
        await stream.send(frame(2))
        assert not swapping.done()
        engine.free()
        outcome = await swapping
        await stream.send(frame(3))
        results = await stream.results(3)
        await stream.finish()
    assert [result.status for result in results if result.sequence in (1, 3)] == [STATUS_OK] * 2
    assert [result.sequence for result in results if result.status == STATUS_OK] == sorted(
        result.sequence for result in results if result.status == STATUS_OK
    )
    by_sequence = {result.sequence: result for result in results}
    assert by_sequence[1].engine_digest == opened.engine_digest == outcome.replaced_digest
    assert by_sequence[3].engine_digest == outcome.digest == Bundle.open(new).digest
    assert (by_sequence[1].schema_changed, by_sequence[3].schema_changed) == (False, True)
    assert outcome.schema_changed
    assert by_sequence[3].detections[0].label in ("night", "day")


async def test_frames_flow_while_the_engine_is_swapped_again_and_again(bundle_path: Path, tmp_path: Path) -> None:
    paths = [write_bundle(tmp_path / str(number), version=f"{number}.0") for number in range(2, 5)]
    async with serving(bundle_path) as running:
        stream = await running.open_one("front")
        sent, swapped = 0, False

        async def flow() -> None:
            nonlocal sent
            while not swapped:
                sent += 1
                await stream.send(frame(sent))
                await asyncio.sleep(0.002)

        flowing = asyncio.ensure_future(flow())
        for path in paths:
            assert not (await swap(running, bundle=str(path))).schema_changed
        swapped = True
        await flowing
        results = await stream.finish()
        assert sorted(result.sequence for result in results) == list(range(1, sent + 1))
        digests = [result.engine_digest for result in results if result.status == STATUS_OK]
        order = [Bundle.open(path).digest for path in (bundle_path, *paths)]
        assert [order.index(digest) for digest in digests] == sorted(order.index(digest) for digest in digests)
        page = await running.metrics()
        assert 'engine_version="4.0"' in page
        assert 'engine_version="3.0"' not in page


async def test_whatever_is_wrong_with_the_new_bundle_the_old_engine_serves_on(
    bundle_path: Path, tmp_path: Path, running: Running
) -> None:
    wrong = write_bundle(tmp_path / "wrong", version="2.0", reference=reference(0.1))
    corrupt = Path(shutil.copytree(bundle_path, tmp_path / "corrupt"))
    (corrupt / "graphs" / "float.onnx").write_bytes(b"changed")
    refused: Mapping[str, str] = {
        str(wrong): "disagrees with the float graph",
        str(corrupt): "has SHA-256",
        str(tmp_path / "nothing"): "nothing",
        str(write_bundle(tmp_path / "named", name="other")): "is other, the engine is quarters",
        str(write_bundle(tmp_path / "tensors", version="2.0", camera=False)): "takes tensors",
    }
    for path, reason in refused.items():
        code, details = await refusal(running, bundle=path)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert reason in details
    code, details = await refusal(running, name="other")
    assert code is grpc.StatusCode.NOT_FOUND
    assert "quarters 1.0" in details
    assert running.server.catalogue.find().version == "1.0"
    await running.still_serves()


async def test_a_stream_that_asked_for_its_version_keeps_it(running: Running, tmp_path: Path) -> None:
    stream = running.stream()
    camera = stream_pb2.Open().cameras.add(id="front", width=64, height=32, encoding=3)
    await stream.open([camera], engine="quarters", engine_version="1.0")
    _, details = await refusal(running, bundle=str(write_bundle(tmp_path / "new", version="2.0")))
    assert "asked for version 1.0 of quarters by name" in details


async def test_the_streams_of_an_unloaded_engine_are_told(running: Running) -> None:
    stream = await running.open_one("front")
    await running.server.catalogue.unload("quarters")
    await stream.send(frame(1))
    (result,) = await stream.results(1)
    assert result.status == STATUS_REFUSED
    assert result.reason == "the engine was unloaded"


async def test_sighup_swaps_what_lies_at_the_bundles_path(bundle_path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    command = [sys.executable, "-m", "server", str(path), "--port", "0", "--metrics-port", "0", "--threads", "1"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        log = process.stderr
        assert log is not None
        await _until_said(log, "serving quarters 1.0")
        shutil.rmtree(path)
        write_bundle(path, version="2.0")
        os.kill(process.pid, signal.SIGHUP)
        await _until_said(log, "version 2.0")
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def _until_said(log: asyncio.StreamReader, words: str) -> None:
    while words not in (line := await asyncio.wait_for(log.readline(), 60)).decode():
        assert line, f"the server ended before it said {words!r}"


def test_who_may_swap() -> None:
    local = ("ipv4:127.0.0.1:5", "ipv6:%5B::1%5D:5", "ipv6:[::1]:5", "unix:", "unix:/run/x")
    assert all(is_local(peer) for peer in local)
    assert not any(is_local(peer) for peer in ("ipv4:10.0.0.1:5", "ipv4:192.168.127.1:1", "ipv6:%5B2001:db8::1%5D:5"))


async def test_what_does_not_fit_is_refused_with_both_sizes(
    running: Running, bundle_path: Path, engine: Engine
) -> None:
    engine.memory = {"activations": 100 << 20, "device_free": 10 << 20, "device_total": 1 << 30}
    async with serving(bundle_path, engine.open) as full:
        with pytest.raises(SwapRefused, match=r"need 125 MiB beside the old engine, 10 MiB are left"):
            check_fit(full.server.catalogue.find().served, Bundle.open(bundle_path), 1)
        check_fit(running.server.catalogue.find().served, Bundle.open(bundle_path), 1)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    assert available_bytes(meminfo, tmp_path) == 2 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(meminfo, tmp_path) == 2 << 20
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_bytes(meminfo, tmp_path) == 2000
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None
