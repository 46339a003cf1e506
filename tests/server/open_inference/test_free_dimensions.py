"""Dimensions besides the batch that every request chooses: what is answered, what is refused, and from `.onnx` on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
import pytest

from engine.allocate import allocate
from engine.bundle import Bundle
from engine.errors import RunFailed
from engine.process import WorkerRuntime
from engine.runtime import Runtime
from engine.slots import RegionTable
from protos.inference.service_pb2 import ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse
from server.open_inference.datatypes import DATATYPES
from tests.server.conftest import Running, serving
from tests.server.open_inference.bundles import write_places, write_sequences
from tests.server.open_inference.test_life import call, failure, infer

Arrays = Mapping[str, npt.NDArray[Any]]


def request(model: str, arrays: Arrays) -> ModelInferRequest:
    inputs = [{"name": n, "datatype": DATATYPES[a.dtype.name], "shape": a.shape} for n, a in arrays.items()]
    return ModelInferRequest(
        model_name=model, inputs=inputs, raw_input_contents=[array.tobytes() for array in arrays.values()]
    )


def outputs(answer: ModelInferResponse) -> dict[str, npt.NDArray[Any]]:
    return {
        one.name: np.frombuffer(raw, np.int64).reshape(one.shape)
        for one, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def sequences(batch: int, length: int, mask_length: int | None = None) -> dict[str, npt.NDArray[Any]]:
    mask = np.ones((batch, length if mask_length is None else mask_length), np.int64)
    return {"ids": np.arange(batch * length).reshape(batch, length), "mask": mask}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Running]:
    bundles = (write_sequences(tmp_path), write_places(tmp_path, found=4))
    async with serving(bundles) as running:
        yield running


async def test_requests_of_all_sizes_are_answered_whatever_was_asked_before(served: Running) -> None:
    sizes = [(batch, length) for batch in (0, 1, 4) for length in (0, 1, 7, 16)] * 2
    calls = [infer(served.channel, request("sequences", sequences(*size))) for size in sizes]
    for size, answer in zip(sizes, await asyncio.gather(*calls), strict=True):
        arrays, found = sequences(*size), outputs(answer)
        np.testing.assert_array_equal(found["both"], np.stack([arrays["ids"], arrays["mask"]], axis=2))
        np.testing.assert_array_equal(found["total"], arrays["ids"].sum(axis=1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (sequences(1, 17), "input 'ids' has 17 of dimension 'length', at most 16 are served"),
        (sequences(1, 5, 6), "input 'mask' has 6 of dimension 'length', input 'ids' has 5"),
        (sequences(5, 1), "a batch of 5, model 'sequences' takes up to 4"),
    ],
)
async def test_what_is_too_large_or_does_not_belong_together_is_refused(
    served: Running, arrays: Arrays, message: str
) -> None:
    error = await failure(infer(served.channel, request("sequences", arrays)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in str(error.details())


async def test_what_is_too_small_is_refused_and_the_configuration_says_what_is_not(tmp_path: Path) -> None:
    async with serving(write_sequences(tmp_path, smallest=3)) as running:
        assert outputs(await infer(running.channel, request("sequences", sequences(1, 3))))["total"].tolist() == [3]
        error = await failure(infer(running.channel, request("sequences", sequences(1, 2))))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "input 'ids' has 2 of dimension 'length', at least 3 are served" in str(error.details())
        assert "--dimension length=2:USUAL:16" in str(error.details())
        answer = await call(running.channel, "ModelConfig", ModelConfigRequest(name="sequences"), ModelConfigResponse)
        assert answer.config.parameters["dimensions"].string_value == "length=3:16"
        assert [list(one.dims) for one in answer.config.input] == [[-1], [-1]]


async def test_an_output_is_as_long_as_the_run_makes_it(served: Running) -> None:
    for x in ([1.0, -1, 1], [-1.0], [1.0] * 4, [-1, 1.0]):
        found = outputs(await infer(served.channel, request("places", {"x": np.array(x, np.float32)})))
        np.testing.assert_array_equal(found["places"], np.stack(np.nonzero(np.array(x) > 0)))
    error = await failure(infer(served.channel, request("places", {"x": np.ones(5, np.float32)})))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "output 'places' has shape [1, 5], there is room for [1, 4]" in str(error.details())
    assert "--dimension found=N" in str(error.details())


def test_an_engine_in_a_process_of_its_own_tells_shapes_too(tmp_path: Path) -> None:
    regions = RegionTable()
    runtime: Runtime = WorkerRuntime(Bundle.open(write_places(tmp_path, found=4)), "cpu", regions, threads=1)
    try:
        with allocate(runtime.describe(), regions, 1) as slots:
            batch = slots.shaped({"x": (3,), "places": (1, 4)})
            regions.view(batch.inputs["x"])[:] = [1, -1, 1]
            assert runtime.run(batch).shapes == {"places": (1, 2)}
            assert regions.view(batch.outputs["places"])[0, :2].tolist() == [0, 2]
            regions.view(slots.inputs["x"])[:] = 1
            with pytest.raises(RunFailed, match="there is room for"):
                runtime.run(slots.shaped({"x": (8,), "places": (1, 4)}))
    finally:
        runtime.close()
        regions.close()
