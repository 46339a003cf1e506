"""A request's head is checked once, and again as soon as it may mean something else."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np

from protos.inference.service_pb2 import ModelInferRequest
from server.open_inference.prepared import KEPT
from tests.server.conftest import serving
from tests.server.open_inference.bundles import write_scores
from tests.server.open_inference.test_life import failure, infer


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
