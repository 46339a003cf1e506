"""From a plain ONNX file to answers: no camera, one input with a batch and one of any length, a scalar output."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from protos.inference.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelInferRequest,
)
from tests.server.conftest import serving
from tests.server.open_inference.test_life import call, failure, infer

ROOT = Path(__file__).resolve().parents[3]
WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2)


def plain_model() -> onnx.ModelProto:
    """`y` (N, 2) = `x` (N, 4) @ weight; `total` () = the sum of `ids` (length)."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("ReduceSum", ["ids"], ["total"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [value("x", TensorProto.FLOAT, ["N", 4]), value("ids", TensorProto.INT64, ["length"])],
        [value("y", TensorProto.FLOAT, ["N", 2]), value("total", TensorProto.INT64, [])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


async def test_a_plain_model_is_built_and_served(tmp_path: Path) -> None:
    onnx.save(plain_model(), tmp_path / "plain.onnx")
    command = [sys.executable, "-m", "build_engine", "build", tmp_path / "plain.onnx", "-o", tmp_path / "bundle"]
    command += ["--dimension", "length=3:5:9", "--latency-seconds", "0"]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    async with serving(tmp_path / "bundle") as running:
        answer = await call(running.channel, "ModelConfig", ModelConfigRequest(name="plain"), ModelConfigResponse)
        assert answer.config.max_batch_size == 0  # one input has no batch, so dimensions are given in full
        assert [list(one.dims) for one in answer.config.input] == [[-1, 4], [-1]]
        assert [list(one.dims) for one in answer.config.output] == [[-1, 2], []]
        x, ids = np.ones((3, 4), np.float32), np.arange(5)
        request = ModelInferRequest(
            model_name="plain",
            inputs=[
                {"name": "x", "datatype": "FP32", "shape": x.shape},
                {"name": "ids", "datatype": "INT64", "shape": ids.shape},
            ],
            raw_input_contents=[x.tobytes(), ids.tobytes()],
        )
        answer = await infer(running.channel, request)
        assert [list(one.shape) for one in answer.outputs] == [[3, 2], []]
        np.testing.assert_array_equal(
            np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, 2), x @ WEIGHT
        )
        assert np.frombuffer(answer.raw_output_contents[1], np.int64).tolist() == [10]
        request.inputs[1].shape[:] = [2]
        request.raw_input_contents[1] = ids[:2].tobytes()
        refused = await failure(infer(running.channel, request))
        assert "input 'ids' has 2 of dimension 'length', at least 3 are served" in str(refused.details())
