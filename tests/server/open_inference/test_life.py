"""What happens to requests over time: turns, timeouts, failures, cancellation, shutting down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from protos.inference.service_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    ModelStreamInferResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from protos.monocoque.v1.result_pb2 import STATUS_OK
from server.observe.metrics import TRITON_METRICS
from server.open_inference.stream import REQUESTS_AHEAD
from tests.server.bundles import HEIGHT, WIDTH
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import PATIENCE_SECONDS, camera, frame

SERVICE = "/inference.GRPCInferenceService/"


def request(value: int = 255, request_id: str = "", batch: int = 1, **parameters: int) -> ModelInferRequest:
    """A frame for the camera's engine, by its tensor."""
    image = np.full((batch, HEIGHT, WIDTH, 3), value, np.uint8)
    return ModelInferRequest(
        model_name="quarters",
        id=request_id,
        parameters={name: InferParameter(int64_param=number) for name, number in parameters.items()},
        inputs=[{"name": "images", "datatype": "UINT8", "shape": image.shape}],
        raw_input_contents=[image.tobytes()],
    )


def call(channel: grpc.aio.Channel, method: str, message: Any, answer: Any) -> Any:
    multi: Any = channel.unary_unary(SERVICE + method, type(message).SerializeToString, answer.FromString)
    return multi(message, timeout=PATIENCE_SECONDS)


def infer(channel: grpc.aio.Channel, message: ModelInferRequest) -> Any:
    return call(channel, "ModelInfer", message, ModelInferResponse)


def open_stream(channel: grpc.aio.Channel) -> Any:
    multi: Any = channel.stream_stream(
        SERVICE + "ModelStreamInfer", ModelInferRequest.SerializeToString, ModelStreamInferResponse.FromString
    )
    return multi(timeout=PATIENCE_SECONDS)


async def failure(awaited: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaited
    return caught.value


async def fails_so_far(channel: grpc.aio.Channel) -> int:
    answer = await call(channel, "ModelStatistics", ModelStatisticsRequest(name="quarters"), ModelStatisticsResponse)
    return int(answer.model_stats[0].inference_stats.fail.count)


async def test_a_camera_s_engine_is_served_by_its_tensors(real: Running) -> None:
    answer = await infer(real.channel, request(batch=2))
    assert [one.name for one in answer.outputs] == ["scores", "classes", "boxes", "distances", "drivable"]
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), 1)
    assert answer.outputs[0].shape == [2, 2]
    await real.still_serves()


async def test_a_timeout_bounds_the_wait_and_not_the_work(running: Running, engine: Engine) -> None:
    engine.hold = True
    first = infer(running.channel, request(1, timeout=60_000_000))
    await engine.entered()
    second = infer(running.channel, request(2, "second", timeout=1))
    third = infer(running.channel, request(3, timeout=60_000_000))
    await running.until(lambda: sum(running.server.mailbox.depths().values()) == 2)
    engine.free()
    assert (await first).outputs
    assert (await third).outputs
    late = await failure(second)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "[request id: second]" in str(late.details())
    assert engine.batches == [[1.0], [3.0]]


async def test_a_higher_priority_goes_first(running: Running, engine: Engine) -> None:
    engine.hold = True
    calls = [infer(running.channel, request(1))]
    await engine.entered()
    calls += [infer(running.channel, request(2, priority=17)), infer(running.channel, request(3, priority=1))]
    await running.until(lambda: sum(running.server.mailbox.depths().values()) == 2)
    engine.free()
    await asyncio.gather(*calls)
    assert engine.batches == [[1.0], [3.0], [2.0]]


async def test_prometheus_sees_requests_by_triton_s_names(running: Running, engine: Engine) -> None:
    await infer(running.channel, request(batch=3))
    engine.fail = "out of order"
    await failure(infer(running.channel, request()))
    shown = dict(
        line.rsplit(" ", 1) for line in (await running.metrics()).splitlines() if line.startswith("nv_inference")
    )
    labels = '{model="quarters",version="1.0"}'
    assert {name.removesuffix(labels) for name in shown} == set(TRITON_METRICS)
    for name, value in (("request_success", 1), ("request_failure", 1), ("count", 3), ("exec_count", 1)):
        assert float(shown[f"nv_inference_{name}{labels}"]) == value
    assert float(shown[f"nv_inference_compute_infer_duration_us{labels}"]) > 0
    await running.server.catalogue.unload("quarters")
    assert "nv_inference_count{" not in await running.metrics()


async def test_camera_frames_are_inferences_too(bundle_path: Path, engine: Engine) -> None:
    names = [f"camera-{index}" for index in range(3)]
    async with serving(bundle_path, engine.open, max_batch=2) as running:
        engine.hold = True
        stream = running.stream()
        await stream.open([camera(name) for name in ("first", *names)])
        await stream.send(frame(1, "first"))
        await engine.entered()
        for name in names:
            await stream.send(frame(1, name))
        await running.until(lambda: sum(running.server.mailbox.depths().values()) == len(names))
        engine.free()
        results = await stream.results(1 + len(names))
        assert {result.status for result in results} == {STATUS_OK}
        launches = len(engine.batches)
        engine.fail = "out of order"
        await stream.send(frame(2, "first"))
        await stream.results(1)
        message = ModelStatisticsRequest(name="quarters")
        (model,) = (await call(running.channel, "ModelStatistics", message, ModelStatisticsResponse)).model_stats
        assert (model.inference_count, model.execution_count) == (4, launches)
        counts = {field.name: value.count for field, value in model.inference_stats.ListFields() if value.count}
        computed = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        assert counts == dict.fromkeys(computed, 4) | {"fail": 1}
        assert sum(one.compute_infer.count for one in model.batch_stats) == launches
        assert sum(one.batch_size * one.compute_infer.count for one in model.batch_stats) == 4
        assert 'nv_inference_count{model="quarters",version="1.0"} 4' in await running.metrics()
        engine.fail = ""
        await infer(running.channel, request(batch=3))
        assert 'nv_inference_count{model="quarters",version="1.0"} 7' in await running.metrics()


async def test_a_failing_engine_costs_its_request_and_no_more(running: Running, engine: Engine) -> None:
    engine.fail = "out of order"
    error = await failure(infer(running.channel, request()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "out of order" in str(error.details())
    assert await fails_so_far(running.channel) == 1
    stream = open_stream(running.channel)
    await stream.write(request(1, "one"))
    assert "out of order" in (await stream.read()).error_message
    engine.fail = ""
    await stream.write(request(1, "two"))
    assert (await stream.read()).infer_response.id == "two"
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF  # type: ignore[attr-defined] # missing from the stubs


async def test_a_request_whose_client_has_left_is_not_computed(running: Running, engine: Engine) -> None:
    engine.hold = True
    first = infer(running.channel, request(1))
    await engine.entered()
    second = infer(running.channel, request(2))
    await running.until(lambda: sum(running.server.mailbox.depths().values()) == 1)
    second.cancel()
    await running.until(lambda: running.server.open_inference._calls == 1)
    engine.free()
    await first
    await infer(running.channel, request(3))
    assert engine.batches == [[1.0], [3.0]]


async def test_a_stream_is_read_a_few_requests_ahead_and_no_more(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = open_stream(running.channel)
    count = 3 * REQUESTS_AHEAD
    for index in range(count):
        await stream.write(request(index + 1, str(index)))
    await engine.entered()
    await running.until(lambda: sum(running.server.mailbox.depths().values()) == REQUESTS_AHEAD - 1)
    engine.free()
    answers = [await stream.read() for _ in range(count)]
    assert [answer.infer_response.id for answer in answers] == [str(index) for index in range(count)]
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


async def test_garbage_in_a_stream_is_answered_and_the_stream_goes_on(running: Running) -> None:
    multi: Any = running.channel.stream_stream(SERVICE + "ModelStreamInfer")
    stream = multi(timeout=PATIENCE_SECONDS)
    await stream.write(b"\xff\xff\xff")
    assert ModelStreamInferResponse.FromString(await stream.read()).error_message.startswith("malformed message")
    await stream.write(request(1, "next").SerializeToString())
    assert ModelStreamInferResponse.FromString(await stream.read()).infer_response.id == "next"
    await stream.done_writing()


async def test_garbage_is_refused(running: Running) -> None:
    multi: Any = running.channel.unary_unary(SERVICE + "ModelInfer")
    for message in (b"\xff\xff\xff", b"\x3a\x05a", b"\x3a\x00" * 5000):
        assert (await failure(multi(message))).code() is grpc.StatusCode.INVALID_ARGUMENT
    await running.still_serves()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_beyond_the_limit_is_refused(running: Running, compression: grpc.Compression) -> None:
    too_large = request()
    too_large.raw_input_contents[0] = bytes(8 << 20)  # a few kilobytes once it is compressed
    multi: Any = running.channel.unary_unary(SERVICE + "ModelInfer")
    error = await failure(multi(too_large.SerializeToString(), compression=compression))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await running.still_serves()


async def test_what_was_accepted_is_answered_before_the_end(running: Running, engine: Engine) -> None:
    engine.hold = True
    unary = infer(running.channel, request(1))
    await engine.entered()
    stream = open_stream(running.channel)
    await stream.write(request(2, "in the stream"))
    await running.until(lambda: sum(running.server.mailbox.depths().values()) == 1)
    ending = asyncio.ensure_future(running.server.stop())
    await running.until(lambda: running.server.core.draining)
    refused = await failure(infer(running.channel, request(3)))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert not (await call(running.channel, "ServerReady", ServerReadyRequest(), ServerReadyResponse)).ready
    engine.free()
    assert (await unary).outputs
    assert (await stream.read()).infer_response.id == "in the stream"
    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    await ending
