import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from protos.inference import wire
from protos.inference.service_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

parameters = st.dictionaries(
    st.text(max_size=5), st.builds(InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1))
)
inputs = st.builds(
    ModelInferRequest.InferInputTensor,
    name=st.text(max_size=10),
    datatype=st.sampled_from(["FP32", "BOOL", ""]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    parameters=parameters,
    contents=st.builds(InferTensorContents, int_contents=st.lists(st.integers(0, 9), max_size=3)),
)
requests = st.builds(
    ModelInferRequest,
    model_name=st.text(max_size=10),
    id=st.text(max_size=10),
    parameters=parameters,
    inputs=st.lists(inputs, max_size=3),
)
contents = st.lists(st.binary(max_size=300), max_size=4)


@given(request=requests, raw=contents)
def test_a_request_is_split_into_what_protobuf_reads(request: ModelInferRequest, raw: list[bytes]) -> None:
    whole = ModelInferRequest()
    whole.CopyFrom(request)
    whole.raw_input_contents.extend(raw)
    head, found = wire.split(whole.SerializeToString())
    assert ModelInferRequest.FromString(head) == request
    assert [bytes(one) for one in found] == raw


@given(first=requests, second=requests, raw=contents, more=contents)
def test_fields_may_come_in_any_order_and_in_pieces(
    first: ModelInferRequest, second: ModelInferRequest, raw: list[bytes], more: list[bytes]
) -> None:
    message = b"".join(
        part.SerializeToString()
        for part in (
            ModelInferRequest(raw_input_contents=raw),
            first,
            ModelInferRequest(raw_input_contents=more),
            second,
        )
    )
    split, found = wire.split(message)
    head = ModelInferRequest.FromString(split)
    assert [bytes(one) for one in found] == raw + more
    head.raw_input_contents.extend(raw + more)
    assert head == ModelInferRequest.FromString(message)


def test_raw_contents_are_views_of_the_message() -> None:
    message = ModelInferRequest(raw_input_contents=[b"1234"]).SerializeToString()
    _, raw = wire.split(message)
    assert raw[0].obj is message


def test_unknown_fields_of_any_kind_are_passed_over() -> None:
    unknown = b"\xa0\x06\x96\x01" + b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4) + b"\xa2\x06\x02ab"
    head, raw = wire.split(unknown + ModelInferRequest(id="a", raw_input_contents=[b"x"]).SerializeToString())
    assert ModelInferRequest.FromString(head).id == "a"
    assert [bytes(one) for one in raw] == [b"x"]


@pytest.mark.parametrize("message", [b"\x3a\x05ab", b"\xa1\x06abc", b"\xa3\x06", b"\x80" * 12])
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.split(message)


def test_a_small_message_makes_no_large_heap() -> None:
    with pytest.raises(DecodeError, match="more than 4096 fields"):
        wire.split(b"\x3a\x00" * 5000)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(noise: bytes) -> None:
    with contextlib.suppress(DecodeError):
        wire.split(noise)


answers = st.builds(ModelInferResponse, model_name=st.text(max_size=10), id=st.text(max_size=10))


@given(answer=answers, raw=contents)
def test_an_answer_is_what_protobuf_writes(answer: ModelInferResponse, raw: list[bytes]) -> None:
    whole = ModelInferResponse()
    whole.CopyFrom(answer)
    whole.raw_output_contents.extend(raw)
    views: list[memoryview | bytes] = [memoryview(one) for one in raw]
    assert ModelInferResponse.FromString(wire.join(answer.SerializeToString(), views)) == whole
    streamed = ModelStreamInferResponse.FromString(wire.join(answer.SerializeToString(), views, in_stream=True))
    assert streamed == ModelStreamInferResponse(infer_response=whole)
