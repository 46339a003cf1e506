"""Reading a request's tensors: what protobuf clients may send, and what nobody should."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.tensors import TensorSpec
from protos.inference import wire
from protos.inference.service_pb2 import InferTensorContents, ModelInferRequest
from server.engines.tensor_request import TensorSource
from server.errors import RequestInvalid, StreamEnded
from server.open_inference.contents import FIELDS
from server.open_inference.datatypes import DATATYPES
from server.open_inference.inputs import Inputs, plan_inputs
from server.open_inference.models import Model
from server.open_inference.placement import FindRegion
from server.open_inference.regions import Region, Regions

Tensor = ModelInferRequest.InferInputTensor


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape})


def model(*specs: TensorSpec, largest_batch: int = 4) -> Model:
    inputs = {one.name: one for one in specs}
    return Model("model", "1", "digest", inputs, {}, largest_batch, all(one.batched for one in specs))


def no_region(name: str) -> Region:
    return Regions().find(0, name)


def read_inputs(
    one: Model, request: ModelInferRequest, raw: list[memoryview], find_region: FindRegion
) -> tuple[Inputs, int]:
    plan = plan_inputs(one, request, len(raw) > 0, find_region)
    return plan.read(raw), plan.extent.batch


def elements(given: npt.NDArray[Any] | TensorSource) -> npt.NDArray[Any]:
    """An input as the engine will read it."""
    target = np.zeros(given.shape, given.dtype)
    if isinstance(given, np.ndarray):
        np.copyto(target, given)
    else:
        given.copy_into(target.reshape(-1).view(np.uint8).data)
    return target


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[str]) -> tuple[TensorSpec, npt.NDArray[Any]]:
    """An input of a model, batched or not, and an array for it."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    batched = draw(st.booleans())
    batch = draw(st.integers(0, 4))
    array = draw(hnp.arrays(dtype, ([batch] if batched else []) + shape))
    return spec("x", dtype, *(["batch"] if batched else []), *shape), array


@given(tensors(sorted(DATATYPES)))
def test_raw_contents_are_read_as_they_are(given_tensor: tuple[TensorSpec, npt.NDArray[Any]]) -> None:
    one, array = given_tensor
    request = ModelInferRequest(inputs=[Tensor(name="x", datatype=DATATYPES[one.dtype], shape=array.shape)])
    inputs, batch = read_inputs(model(one), request, [memoryview(array.tobytes())], no_region)
    np.testing.assert_array_equal(elements(inputs["x"]), array)
    assert (inputs["x"].dtype, inputs["x"].shape) == (array.dtype, array.shape)
    assert batch == (array.shape[0] if one.batched else 1)


@given(tensors(sorted(FIELDS)))
def test_typed_contents_are_read_as_they_are(given_tensor: tuple[TensorSpec, npt.NDArray[Any]]) -> None:
    one, array = given_tensor
    contents = InferTensorContents(**{FIELDS[one.dtype]: array.ravel().tolist()})
    tensor = Tensor(name="x", datatype=DATATYPES[one.dtype], shape=array.shape, contents=contents)
    inputs, _ = read_inputs(model(one), ModelInferRequest(inputs=[tensor]), [], no_region)
    np.testing.assert_array_equal(elements(inputs["x"]), array)
    assert inputs["x"].dtype == array.dtype


def test_raw_contents_are_not_copied() -> None:
    content = bytearray(12)
    request = ModelInferRequest(inputs=[Tensor(name="x", datatype="FP32", shape=[3])])
    inputs, _ = read_inputs(model(spec("x", "float32", 3)), request, [memoryview(content)], no_region)
    content[:4] = np.float32(7).tobytes()
    assert elements(inputs["x"])[0] == 7


def test_a_truth_value_is_0_or_1_whatever_byte_came() -> None:
    request = ModelInferRequest(inputs=[Tensor(name="x", datatype="BOOL", shape=[3])])
    inputs, _ = read_inputs(model(spec("x", "bool", 3)), request, [memoryview(b"\x00\x02\xff")], no_region)
    assert elements(inputs["x"]).view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "field", "value"), [("int8", "int_contents", 128), ("uint16", "uint_contents", 65_536)]
)
def test_a_value_that_does_not_fit_its_type_is_refused(dtype: str, field: str, value: int) -> None:
    contents = InferTensorContents(**{field: [value]})
    tensor = Tensor(name="x", datatype=DATATYPES[dtype], shape=[1], contents=contents)
    with pytest.raises(RequestInvalid, match="a value that does not fit"):
        read_inputs(model(spec("x", dtype, 1)), ModelInferRequest(inputs=[tensor]), [], no_region)


SIZES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, 2, 3, 4, 2**31, 2**62, -1]))
HOSTILE = st.builds(
    Tensor,
    name=st.sampled_from(["a", "b", "c", ""]),
    datatype=st.sampled_from(["FP32", "INT64", "BYTES", "BF16", "", "X" * 1000]),
    shape=st.one_of(st.lists(SIZES, max_size=4), st.just([1] * 5000)),
    contents=st.one_of(
        st.none(), st.builds(InferTensorContents, fp32_contents=st.lists(st.floats(width=32), max_size=9))
    ),
)


@given(st.lists(HOSTILE, max_size=4), st.lists(st.binary(max_size=70), max_size=4))
def test_whatever_comes_is_refused_or_is_just_what_the_engine_takes(
    given_tensors: list[Tensor], raw: list[bytes]
) -> None:
    one = model(spec("a", "float32", "batch", 3), spec("b", "int64", "batch", 2, 2))
    try:
        inputs, batch = read_inputs(
            one, ModelInferRequest(inputs=given_tensors), [memoryview(content) for content in raw], no_region
        )
    except StreamEnded as error:
        assert len(error.message) < 1000
        return
    assert 0 <= batch <= 4
    assert {name: (array.dtype.name, array.shape) for name, array in inputs.items()} == {
        "a": ("float32", (batch, 3)),
        "b": ("int64", (batch, 2, 2)),
    }


@given(st.data())
def test_a_damaged_message_is_refused_or_read(data: st.DataObject) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    request = ModelInferRequest(
        model_name="m", inputs=[Tensor(name="x", datatype="FP32", shape=[2, 3])], raw_input_contents=[array.tobytes()]
    )
    message = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StreamEnded, DecodeError):
        head, raw = wire.split(bytes(message))
        split = ModelInferRequest.FromString(head)
        inputs, batch = read_inputs(model(spec("x", "float32", "batch", 3)), split, raw, no_region)
        assert inputs["x"].shape == (batch, 3)
