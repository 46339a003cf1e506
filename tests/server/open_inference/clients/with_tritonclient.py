"""Checks that `tritonclient.grpc` works with our server, unchanged: `python with_tritonclient.py ADDRESS FIELDS`.

Runs without our code. FIELDS is JSON: our messages' fields, by file and message. Prints a line of JSON: per check, "ok"
or what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

A = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
B = np.arange(8, dtype=np.int64).reshape(2, 2, 2)
PATIENCE_SECONDS = 60
CHECKS: dict[str, Callable[[triton.InferenceServerClient, str], None]] = {}


def check(function: Callable[[triton.InferenceServerClient, str], None]) -> None:
    CHECKS[function.__name__] = function


def tensor(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    one = triton.InferInput(name, list(array.shape), datatype)
    one.set_data_from_numpy(array)
    return one


def mixed() -> list[triton.InferInput]:
    return [tensor("a", A, "FP32"), tensor("b", B, "INT64")]


@check
def health(client: triton.InferenceServerClient, _: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mixed")
    assert client.is_model_ready("mixed", "1")
    assert not client.is_model_ready("nothing")


@check
def metadata(client: triton.InferenceServerClient, _: str) -> None:
    assert client.get_server_metadata(as_json=True)["name"] == "monocoque"
    model = client.get_model_metadata("mixed")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [
        ("a", "FP32", [-1, 3]),
        ("b", "INT64", [-1, 2, 2]),
    ]


@check
def configuration(client: triton.InferenceServerClient, _: str) -> None:
    config = client.get_model_config("mixed").config
    assert config.max_batch_size == 4
    assert [list(one.dims) for one in config.input] == [[3], [2, 2]]
    assert not config.model_transaction_policy.decoupled
    assert client.get_model_config("mixed", as_json=True)["config"]["backend"] == "onnxruntime"


@check
def unary(client: triton.InferenceServerClient, _: str) -> None:
    result = client.infer("mixed", mixed(), request_id="seven", priority=1, timeout=60_000_000)
    np.testing.assert_array_equal(result.as_numpy("sum"), A + 1)
    np.testing.assert_array_equal(result.as_numpy("twice"), B * 2)
    assert result.get_response().id == "seven"
    result = client.infer("mixed", mixed(), outputs=[triton.InferRequestedOutput("twice")], model_version="1")
    assert result.as_numpy("sum") is None
    np.testing.assert_array_equal(result.as_numpy("twice"), B * 2)


@check
def every_type(client: triton.InferenceServerClient, _: str) -> None:
    halves, flags, small = (
        np.array([1, -2, 0.5, 65504], np.float16),
        np.array([True, False]),
        np.array([7, 255], np.uint8),
    )
    result = client.infer(
        "flat", [tensor("x", halves, "FP16"), tensor("flag", flags, "BOOL"), tensor("u8", small, "UINT8")]
    )
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(result.as_numpy("y"), halves + halves)
    np.testing.assert_array_equal(result.as_numpy("not_flag"), ~flags)
    np.testing.assert_array_equal(result.as_numpy("u16"), small.astype(np.uint16) * 2)


@check
def scalars(client: triton.InferenceServerClient, _: str) -> None:
    inputs = [tensor("left", np.array(1.5), "FP64"), tensor("right", np.array(2.25), "FP64")]
    assert client.infer("scalars", inputs).as_numpy("sum") == np.array(3.75)


@check
def a_batch_of_none(client: triton.InferenceServerClient, _: str) -> None:
    result = client.infer("mixed", [tensor("a", A[:0], "FP32"), tensor("b", B[:0], "INT64")])
    assert result.as_numpy("sum").shape == (0, 3)


@check
def compression(client: triton.InferenceServerClient, _: str) -> None:
    for algorithm in ("gzip", "deflate"):
        result = client.infer("mixed", mixed(), compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("sum"), A + 1)


@check
def large_tensors(client: triton.InferenceServerClient, _: str) -> None:
    image = np.random.default_rng(1).standard_normal(1 << 20).astype(np.float32)
    result = client.infer("image", [tensor("image", image, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("copy"), image)


@check
def asynchronous(client: triton.InferenceServerClient, _: str) -> None:
    done: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    for _ in range(20):
        client.async_infer("mixed", mixed(), lambda result, error: done.put((result, error)))
    for _ in range(20):
        result, error = done.get(timeout=PATIENCE_SECONDS)
        assert error is None, error
        np.testing.assert_array_equal(result.as_numpy("sum"), A + 1)


@check
def asyncio_client(_: triton.InferenceServerClient, address: str) -> None:
    async def run() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            results = await asyncio.gather(*(client.infer("mixed", mixed()) for _ in range(20)))
            for result in results:
                np.testing.assert_array_equal(result.as_numpy("sum"), A + 1)

            async def requests() -> AsyncIterator[dict[str, object]]:
                for index in range(5):
                    yield {"model_name": "mixed", "inputs": mixed(), "request_id": str(index)}

            seen = []
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                seen.append(result.get_response().id)
            assert seen == list("01234")

    asyncio.run(run())


@check
def streaming(_: triton.InferenceServerClient, address: str) -> None:
    """Errors come as answers, in order, and the stream goes on."""
    answers: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.Queue()
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for index in range(12):
            name = "nothing" if index % 3 == 2 else "mixed"
            client.async_stream_infer(
                name,
                mixed(),
                request_id=f"r{index}",
                sequence_id=7 if index % 2 else "car",
                sequence_start=index == 0,
                enable_empty_final_response=True,
            )
        for index in range(12):
            result, error = answers.get(timeout=PATIENCE_SECONDS)
            if index % 3 == 2:
                assert f"r{index}" in error.message(), error
                assert "nothing" in error.message(), error
            else:
                assert error is None, error
                assert result.get_response().id == f"r{index}"
                assert result.get_response().parameters["triton_final_response"].bool_param
                np.testing.assert_array_equal(result.as_numpy("sum"), A + 1)
        client.stop_stream()


@check
def classification(client: triton.InferenceServerClient, _: str) -> None:
    scores = np.array([[0.1, 0.5, 0.2, 0.5, 0], [9, 8, 7, 6, 5]], np.float32)
    outputs = [triton.InferRequestedOutput("probabilities", class_count=2)]
    found = client.infer("scores", [tensor("x", scores, "FP32")], outputs=outputs).as_numpy("probabilities")
    assert found.tolist() == [[b"0.500000:1", b"0.500000:3"], [b"9.000000:0", b"8.000000:1"]]


@check
def shared_memory(client: triton.InferenceServerClient, _: str) -> None:
    sent = shm.create_shared_memory_region("sent", "/monocoque_sent", A.nbytes + B.nbytes)
    back = shm.create_shared_memory_region("back", "/monocoque_back", A.nbytes + B.nbytes)
    try:
        shm.set_shared_memory_region(sent, [A, B])
        client.register_system_shared_memory("sent", "/monocoque_sent", A.nbytes + B.nbytes)
        client.register_system_shared_memory("back", "/monocoque_back", A.nbytes + B.nbytes)
        assert set(client.get_system_shared_memory_status(as_json=True)["regions"]) == {"sent", "back"}
        inputs = [triton.InferInput("a", [2, 3], "FP32"), triton.InferInput("b", [2, 2, 2], "INT64")]
        inputs[0].set_shared_memory("sent", A.nbytes)
        inputs[1].set_shared_memory("sent", B.nbytes, offset=A.nbytes)
        outputs = [triton.InferRequestedOutput("sum"), triton.InferRequestedOutput("twice")]
        outputs[0].set_shared_memory("back", A.nbytes, offset=B.nbytes)
        outputs[1].set_shared_memory("back", B.nbytes)
        client.infer("mixed", inputs, outputs=outputs)
        np.testing.assert_array_equal(shm.get_contents_as_numpy(back, np.float32, [2, 3], offset=B.nbytes), A + 1)
        np.testing.assert_array_equal(shm.get_contents_as_numpy(back, np.int64, [2, 2, 2]), B * 2)
        client.unregister_system_shared_memory("sent")
        assert set(client.get_system_shared_memory_status(as_json=True)["regions"]) == {"back"}
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
    finally:
        shm.destroy_shared_memory_region(sent)
        shm.destroy_shared_memory_region(back)


@check
def unregistering_a_region_in_use(client: triton.InferenceServerClient, _: str) -> None:
    """Requests that were sent before are answered; later ones are told that the region is not there."""
    image = np.ones(1 << 20, np.float32)
    region = shm.create_shared_memory_region("in_use", "/monocoque_in_use", image.nbytes)
    try:
        shm.set_shared_memory_region(region, [image])
        client.register_system_shared_memory("in_use", "/monocoque_in_use", image.nbytes)
        given = triton.InferInput("image", [1 << 20], "FP32")
        given.set_shared_memory("in_use", image.nbytes)
        asked = [triton.InferRequestedOutput("mean")]
        outcomes: queue.Queue[tuple[triton.InferResult, InferenceServerException | None]] = queue.Queue()
        for _ in range(8):
            client.async_infer("image", [given], lambda result, error: outcomes.put((result, error)), outputs=asked)
        client.unregister_system_shared_memory("in_use")
        for _ in range(8):
            result, error = outcomes.get(timeout=PATIENCE_SECONDS)
            if error is None:
                assert result.as_numpy("mean") == 1
            else:
                assert error.status() == "StatusCode.NOT_FOUND"
        assert expect_error(partial(client.infer, "image", [given])).status() == "StatusCode.NOT_FOUND"
    finally:
        shm.destroy_shared_memory_region(region)


@check
def free_dimensions(client: triton.InferenceServerClient, _: str) -> None:
    assert [list(one.shape) for one in client.get_model_metadata("sequences").inputs] == [[-1, -1], [-1, -1]]
    assert [list(one.dims) for one in client.get_model_config("sequences").config.input] == [[-1], [-1]]
    for batch, length in ((1, 5), (3, 16), (4, 1), (1, 5)):
        ids = np.arange(batch * length, dtype=np.int64).reshape(batch, length)
        mask = ids % 2
        answer = client.infer("sequences", [tensor("ids", ids, "INT64"), tensor("mask", mask, "INT64")])
        np.testing.assert_array_equal(answer.as_numpy("both"), np.stack([ids, mask], axis=2))
        np.testing.assert_array_equal(answer.as_numpy("total"), (ids * mask).sum(axis=1))
    for values in ([1, -1, 2], [-1] * 8, [1] * 8, [-1, 1]):
        x = np.array(values, np.float32)
        answer = client.infer("places", [tensor("x", x, "FP32")])
        np.testing.assert_array_equal(answer.as_numpy("places"), np.stack(np.nonzero(x > 0)))


@check
def statistics(client: triton.InferenceServerClient, _: str) -> None:
    before = client.get_inference_statistics("mixed").model_stats[0]
    client.infer("mixed", mixed())
    after = client.get_inference_statistics("mixed", "1").model_stats[0]
    assert after.inference_count == before.inference_count + 2
    assert after.execution_count == before.execution_count + 1
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(after.inference_stats, part).count == getattr(before.inference_stats, part).count + 1
        assert getattr(after.inference_stats, part).ns > getattr(before.inference_stats, part).ns
    assert {one.name for one in client.get_inference_statistics().model_stats} >= {"mixed", "flat", "scores"}


@check
def repository(client: triton.InferenceServerClient, _: str) -> None:
    client.unload_model("scores")
    assert not client.is_model_ready("scores")
    states = {one.name: one.state for one in client.get_model_repository_index().models}
    assert states["scores"] == "UNAVAILABLE"
    assert states["mixed"] == "READY"
    client.load_model("scores")
    assert client.is_model_ready("scores")


@check
def settings(client: triton.InferenceServerClient, _: str) -> None:
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
    assert client.update_log_settings({"log_info": False}, as_json=True)["settings"]["log_info"]["bool_param"] is False
    assert client.update_log_settings({"log_info": True}, as_json=True)["settings"]["log_info"]["bool_param"] is True


@check
def errors(client: triton.InferenceServerClient, _: str) -> None:
    error = expect_error(partial(client.infer, "nothing", mixed()))
    assert error.status() == "StatusCode.NOT_FOUND"
    assert "unknown model" in error.message()
    assert expect_error(partial(client.infer, "mixed", mixed()[:1])).status() == "StatusCode.INVALID_ARGUMENT"
    text = np.full(A.shape, b"text", np.object_)
    refused = expect_error(partial(client.infer, "mixed", [tensor("a", text, "BYTES"), mixed()[1]]))
    assert "BYTES" in refused.message()


@check
def the_wire(_: triton.InferenceServerClient, __: str) -> None:
    """Our messages have the names and the numbers of Triton's; of its configuration, the part that is used."""
    for file, messages in json.loads(sys.argv[2]).items():
        for message, ours in messages.items():
            descriptor = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(message)
            theirs = {field.name: [field.number, field.type] for field in descriptor.fields}
            assert ours.items() <= theirs.items(), (message, ours, theirs)
            assert len(ours) == len(theirs) or "model_config" in file, (message, ours, theirs)


def expect_error(call: Callable[[], object]) -> InferenceServerException:
    try:
        call()
    except InferenceServerException as error:
        return error
    raise AssertionError("no error came")


def outcome(function: Callable[[triton.InferenceServerClient, str], None], client: triton.InferenceServerClient) -> str:
    try:
        function(client, sys.argv[1])
    except Exception:
        return traceback.format_exc()
    return "ok"


with triton.InferenceServerClient(sys.argv[1]) as connected:
    outcomes = {name: outcome(function, connected) for name, function in CHECKS.items()}
sys.stdout.write(json.dumps(outcomes) + "\n")
