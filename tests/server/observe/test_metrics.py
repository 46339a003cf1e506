"""What Prometheus reads: names, bounds, and the page itself."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos.monocoque.v1.result_pb2 import Status
from server.observe.metrics import BATCH_BUCKETS_FRAMES, LATENCY_BUCKETS_SECONDS, OTHER_CAMERA, STATUSES, Metrics
from server.observe.scrape import MAX_CONNECTIONS, slices
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import camera, frame

NAMES = {
    "monocoque_stage_latency_seconds": "histogram",
    "monocoque_frames": "counter",
    "monocoque_deadline_misses": "counter",
    "monocoque_frame_age_jitter_seconds": "gauge",
    "monocoque_frame_age_uncertainty_seconds": "gauge",
    "monocoque_frame_age_seconds": "histogram",
    "monocoque_client_dropped_frames": "counter",
    "monocoque_queue_depth_frames": "gauge",
    "monocoque_batch_size_frames": "histogram",
    "monocoque_engine_busy_seconds": "counter",
    "monocoque_engine_memory_bytes": "gauge",
    "monocoque_process_memory_bytes": "gauge",
    "monocoque_streams": "gauge",
    "monocoque_cameras": "gauge",
    "monocoque_camera_expected": "gauge",
    "monocoque_watchers": "gauge",
    "monocoque_streams_ended": "counter",
    "monocoque_clock_steps": "counter",
    "monocoque_watcher_missed_results": "counter",
    "monocoque_serving": "gauge",
    "monocoque_engine_degraded": "gauge",
    "monocoque_engine_rollbacks": "counter",
    "monocoque_engine_restarts": "counter",
    "monocoque_engine_instances": "gauge",
    "monocoque_build_info": "gauge",
}
"""Dashboards and alerts are built on these; a change here breaks them."""


def samples(page: str, name: str) -> dict[tuple[str, ...], float]:
    """Values of one sample by its label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }


def test_buckets_are_geometric_and_a_frame_period_is_a_bound() -> None:
    ratios = [high / low for low, high in itertools.pairwise(LATENCY_BUCKETS_SECONDS)]
    assert max(ratios) <= 1.3
    assert LATENCY_BUCKETS_SECONDS[0] <= 0.001
    assert LATENCY_BUCKETS_SECONDS[-1] >= 1.0
    assert any(abs(bound * 30 - 1) < 1e-3 for bound in LATENCY_BUCKETS_SECONDS)
    assert sorted(BATCH_BUCKETS_FRAMES) == list(BATCH_BUCKETS_FRAMES)


def test_every_status_of_the_protocol_has_a_counter() -> None:
    named = {name.removeprefix("STATUS_").lower() for name, _ in Status.items()} - {"unspecified"}
    assert set(STATUSES) == named | {"undelivered"}


def test_cameras_past_the_limit_share_one_label() -> None:
    metrics = Metrics(max_cameras=2)
    for name in ("a", "b", "c", "d", "a"):
        metrics.camera(name).frames["ok"].inc()
    page = "".join(slices(metrics))
    frames = {
        camera: value for (camera, status), value in samples(page, "monocoque_frames_total").items() if status == "ok"
    }
    assert frames == {"a": 2, "b": 1, OTHER_CAMERA: 2}
    assert metrics.label("c") == OTHER_CAMERA


def test_frames_of_unknown_cameras_cannot_take_a_label() -> None:
    metrics = Metrics(max_cameras=2)
    metrics.other_camera().frames["refused"].inc()
    assert metrics.label("a") == "a"
    metrics.camera("a")
    metrics.camera("b")
    assert metrics.label("b") == "b"


def test_a_page_can_be_read_by_prometheus_own_parser_and_says_what_it_should() -> None:
    metrics = Metrics(max_cameras=2)
    one = metrics.camera("front")
    one.stages["inference"].observe(0.01)
    one.stages["inference"].observe(0.02)
    metrics.build_info('1"2', "a\\b", "c\nd", *"efghi"[:5]).set(1)
    page = "".join(slices(metrics))
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert families["monocoque_stage_latency_seconds"].type == "histogram"
    counts = samples(page, "monocoque_stage_latency_seconds_count")
    assert counts["inference", "front"] == 2
    buckets = samples(page, "monocoque_stage_latency_seconds_bucket")
    assert buckets["inference", "front", "0.01204"] == 1
    assert buckets["inference", "front", "+Inf"] == 2
    assert samples(page, "monocoque_stage_latency_seconds_sum")["inference", "front"] == pytest.approx(0.03)
    (labels,) = samples(page, "monocoque_build_info")
    assert labels[:3] == ('1"2', "a\\b", "c\nd")
    assert page.count("# TYPE monocoque_stage_latency_seconds ") == 1


async def test_what_happened_is_counted_over_http(running: Running, engine: Engine) -> None:
    watch = running.watch()
    await watch.started()
    stream = running.stream()
    await stream.open([camera("front"), camera("rear")])
    for sequence in range(3):
        await stream.send(frame(sequence, "front", client_dropped=2))
        await stream.results(1)
    await stream.send(frame(0, "rear", data=b"short"))
    await stream.results(1)
    page = await running.metrics()
    found = {family.name: family.type for family in text_string_to_metric_families(page)}
    absent = {"monocoque_streams_ended", "monocoque_engine_memory_bytes"}  # none ended yet; a fake holds nothing
    assert {name: kind for name, kind in found.items() if name.startswith("monocoque_")} == {
        name: kind for name, kind in NAMES.items() if name not in absent
    }
    frames = samples(page, "monocoque_frames_total")
    assert frames["front", "ok"] == 3
    assert frames["rear", "refused"] == 1
    assert sum(frames.values()) == 4
    assert samples(page, "monocoque_client_dropped_frames_total")["front",] == 6
    assert samples(page, "monocoque_stage_latency_seconds_count")["total", "front"] == 3
    assert samples(page, "monocoque_stage_latency_seconds_count")["total", "rear"] == 0
    assert samples(page, "monocoque_frame_age_seconds_count")["front",] == 3
    assert samples(page, "monocoque_batch_size_frames_count")[()] == 3
    assert samples(page, "monocoque_queue_depth_frames") == {("front",): 0, ("rear",): 0}
    assert samples(page, "monocoque_streams")[()] == 1
    assert samples(page, "monocoque_cameras")[()] == 2
    assert samples(page, "monocoque_watchers")[()] == 1
    assert samples(page, "monocoque_serving")[()] == 1
    assert samples(page, "monocoque_engine_busy_seconds_total")["quarters", "1.0"] > 0
    assert samples(page, "monocoque_process_memory_bytes")["resident",] > 1e6
    assert samples(page, "process_open_fds")[()] > 0
    (build,) = samples(page, "monocoque_build_info")
    assert build[1:3] == ("quarters", "1.0")
    await stream.finish()
    await running.until(lambda: not running.server.core.sessions)
    page = await running.metrics()
    assert samples(page, "monocoque_streams_ended_total") == {("OK",): 1}
    assert samples(page, "monocoque_streams")[()] == 0


async def test_frames_are_expected_of_a_camera_until_its_client_ends_the_stream_in_order(running: Running) -> None:
    async def expected() -> dict[tuple[str, ...], float]:
        return samples(await running.metrics(), "monocoque_camera_expected")

    done, broken = await running.open_one("done"), await running.open_one("broken")
    replaced = await running.open_one("replaced")
    assert await expected() == {("done",): 1, ("broken",): 1, ("replaced",): 1}
    await running.open_one("replaced")
    await replaced.finish()
    await done.finish()
    broken.call.cancel()
    await running.until(lambda: len(running.server.core.sessions) == 1)
    assert await expected() == {("done",): 0, ("broken",): 1, ("replaced",): 1}
    await running.open_one("done")
    assert (await expected())["done",] == 1


async def test_frames_are_expected_of_cameras_past_the_limit_for_good(bundle_path: Path, engine: Engine) -> None:
    """They share a label: that one was ended in order says nothing of the others."""
    async with serving(bundle_path, engine.open) as running:
        running.server.metrics.max_cameras = 1
        for name in ("a", "b"):
            await (await running.open_one(name)).finish()
        await running.until(lambda: not running.server.core.sessions)
        assert samples(await running.metrics(), "monocoque_camera_expected") == {("a",): 0, (OTHER_CAMERA,): 1}


async def test_waiting_frames_show_as_queue_depth(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(frame(0))
    await engine.entered()
    await stream.send(frame(1))
    await running.until(lambda: any(running.server.mailbox.depths().values()))
    assert samples(await running.metrics(), "monocoque_queue_depth_frames") == {("front",): 1}
    engine.free()
    await stream.results(2)


async def ask(running: Running, request: bytes) -> bytes:
    host, _, port = running.addresses.metrics.removeprefix("http://").removesuffix("/metrics").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"HEAD /metrics HTTP/1.1", b"200"),
        (b"GET /metrics?name=x HTTP/1.1", b"200"),
    ],
)
async def test_requests_that_are_not_a_scrape(running: Running, request_line: bytes, status: bytes) -> None:
    answer = await ask(running, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.split(b" ")[1] == status


@pytest.mark.parametrize("nonsense", [b"\x00" * 100_000, b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 200])
async def test_nonsense_is_cut_off(running: Running, nonsense: bytes) -> None:
    try:
        answer = await ask(running, nonsense)
    except ConnectionError:
        answer = b""
    assert answer == b""
    assert "monocoque_serving 1" in await running.metrics()


async def test_idle_connections_are_bounded(running: Running) -> None:
    host, _, port = running.addresses.metrics.removeprefix("http://").removesuffix("/metrics").partition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CONNECTIONS)]
    answer = await ask(running, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answer.split(b" ")[1] == b"503"
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


async def test_a_slice_of_the_page_is_one_series(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open) as running:
        metrics = running.server.metrics
        for index in range(6):
            metrics.camera(f"camera-{index}")
        lengths = [part.count("\n") for part in slices(metrics)]
        assert max(lengths) <= len(LATENCY_BUCKETS_SECONDS) + 10
        assert len(lengths) > 6 * 9
