from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.tensors import TensorSpec
from protos.inference.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from server.errors import RequestInvalid
from server.open_inference.classification import best_classes
from server.open_inference.models import Model
from server.open_inference.options import priority_of
from server.open_inference.outputs import read_outputs, write_answer
from server.open_inference.regions import Region, Regions

MODEL = Model(
    name="model",
    version="1.2",
    digest="digest",
    inputs={},
    outputs={
        "scores": TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),
        "half": TensorSpec(name="half", dtype="float16", shape=("batch",)),
    },
    largest_batch=8,
    batched=True,
)
Output = ModelInferRequest.InferRequestedOutputTensor


def no_region(name: str) -> Region:
    return Regions().find(0, name)


def texts(content: bytes) -> list[str]:
    found = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + length].decode())
        content = content[4 + length :]
    return found


@given(
    hnp.arrays(
        st.sampled_from(["float32", "int64", "uint8", "float16"]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    ),
    st.integers(1, 8),
)
def test_the_best_classes_come_first_and_ties_in_order(scores: npt.NDArray[Any], count: int) -> None:
    if scores.dtype.kind == "f":
        scores = np.nan_to_num(scores)
    shape, content = best_classes(scores, count)
    indices = [int(text.rpartition(":")[2]) for text in texts(content)]
    assert shape == (len(scores), min(count, scores.shape[1]))
    expected = [
        index for row in scores.tolist() for index in sorted(range(len(row)), key=lambda i: (-row[i], i))[: shape[1]]
    ]
    assert indices == expected


@given(st.integers(0, 8), st.text(max_size=5), st.booleans())
def test_an_answer_is_a_message_as_protobuf_writes_it(batch: int, request_id: str, in_stream: bool) -> None:
    outputs = {"scores": np.random.rand(batch, 3).astype(np.float32), "half": np.zeros(batch, np.float16)}
    request = ModelInferRequest(id=request_id)
    wanted = read_outputs(MODEL, request, no_region)
    message = write_answer(MODEL, request.id, wanted, outputs, in_stream=in_stream)
    answer = ModelInferResponse()
    if in_stream:
        streamed = ModelStreamInferResponse.FromString(message)
        assert not streamed.error_message
        answer = streamed.infer_response
        assert answer.parameters["triton_final_response"].bool_param
    else:
        answer = ModelInferResponse.FromString(message)
    assert (answer.model_name, answer.model_version, answer.id) == ("model", "1.2", request_id)
    assert [(one.name, one.datatype, tuple(one.shape)) for one in answer.outputs] == [
        ("scores", "FP32", (batch, 3)),
        ("half", "FP16", (batch,)),
    ]
    assert answer.raw_output_contents[0] == outputs["scores"].tobytes()


@pytest.mark.parametrize(("kind", "value"), [("int64_param", 0), ("int64_param", -1), ("string_param", "2")])
def test_a_number_of_classes_that_makes_no_sense_is_refused(kind: str, value: Any) -> None:
    request = ModelInferRequest(outputs=[Output(name="scores", parameters={"classification": {kind: value}})])
    with pytest.raises(RequestInvalid, match="'classification' of output 'scores'"):
        read_outputs(MODEL, request, no_region)


def test_one_goes_first_and_none_is_the_usual_priority() -> None:
    assert [priority_of(given) for given in (0, 1, 2, 9, 17, 1000, -3)] == [0, 8, 7, 0, -8, -8, 0]
