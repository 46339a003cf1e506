"""A request's head is checked once, and again as soon as it may mean something else."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from protos.inference import wire
from protos.inference.service_pb2 import (
    ModelInferRequest,
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse,
)
from server.open_inference.prepared import KEPT, PreparedRequests
from tests.server.conftest import serving
from tests.server.open_inference.bundles import write_scores
from tests.server.open_inference.test_life import call, failure, infer


def request(*scores: float, request_id: str = "") -> ModelInferRequest:
    return ModelInferRequest(
        model_name="scores",
        id=request_id,
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 5]}],
        raw_input_contents=[np.array(scores, np.float32).tobytes()],
    )


async def test_the_same_head_means_what_it_means_now(tmp_path: Path) -> None:
    write_scores(tmp_path / "old")
    async with serving((), repository=tmp_path) as running:
        for first in (1, 2, 3):
            answer = await infer(running.channel, request(first, 0, 0, 0, 0))
            assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == first
            assert answer.model_version == "1"
        too_short = await failure(infer(running.channel, request(1, 0)))
        assert too_short.code() is grpc.StatusCode.INVALID_ARGUMENT
        write_scores(tmp_path / "new", version="2")
        await running.server.catalogue.load("scores", "2")
        assert (await infer(running.channel, request(1, 2, 3, 4, 5))).model_version == "2"
        await running.server.catalogue.unload("scores")
        assert (await failure(infer(running.channel, request(1, 2, 3, 4, 5)))).code() is grpc.StatusCode.NOT_FOUND


async def test_few_heads_are_remembered(tmp_path: Path) -> None:
    async with serving(write_scores(tmp_path)) as running:
        for index in range(KEPT + 5):
            assert (await infer(running.channel, request(1, 2, 3, 4, 5, request_id=str(index)))).id == str(index)
        await infer(running.channel, request(1, 2, 3, 4, 5, request_id="x" * 5000))
        assert len(running.server.open_inference._inference._prepared._kept) == KEPT


async def test_shared_memory_is_looked_up_each_time(tmp_path: Path) -> None:
    """A region that is registered anew under its name is another one; one that is unregistered is let go."""
    keys = [f"/monocoque-test-{secrets.token_hex(8)}" for _ in range(2)]
    files = [Path(f"/dev/shm{key}") for key in keys]
    shared = request()
    shared.ClearField("raw_input_contents")
    shared.inputs[0].parameters["shared_memory_region"].string_param = "scores"
    shared.inputs[0].parameters["shared_memory_byte_size"].int64_param = 20
    async with serving(write_scores(tmp_path)) as running:

        def register(index: int) -> Any:
            message = SystemSharedMemoryRegisterRequest(name="scores", key=keys[index], byte_size=20)
            return call(running.channel, "SystemSharedMemoryRegister", message, SystemSharedMemoryRegisterResponse)

        def unregister() -> Any:
            message = SystemSharedMemoryUnregisterRequest(name="scores")
            return call(running.channel, "SystemSharedMemoryUnregister", message, SystemSharedMemoryUnregisterResponse)

        try:
            for index, file in enumerate(files):
                file.write_bytes(np.full(5, index, np.float32).tobytes())
                await register(index)
                for _ in range(2):
                    answer = await infer(running.channel, shared)
                    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [index] * 5
                await unregister()
                assert (await failure(infer(running.channel, shared))).code() is grpc.StatusCode.NOT_FOUND
            held = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
            assert not [target for target in held if "monocoque-test" in target]
        finally:
            for file in files:
                file.unlink(missing_ok=True)


@given(
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=9), st.sampled_from(["", "raw", "both"])), max_size=8)
)
def test_a_message_is_split_the_same_way_whatever_came_before(messages: list[tuple[str, bytes, str]]) -> None:
    prepared = PreparedRequests()
    for request_id, content, kind in messages * 2:
        message = ModelInferRequest(model_name="m", id=request_id).SerializeToString()
        if kind:
            message += ModelInferRequest(raw_input_contents=[content]).SerializeToString()
        if kind == "both":  # the id comes after the content, as no client of ours sends it
            message += ModelInferRequest(id="late").SerializeToString()
        expected_head, expected_raw = wire.split(message)
        head, raw = prepared.split(message)
        assert (head, [bytes(one) for one in raw]) == (expected_head, [bytes(one) for one in expected_raw])
