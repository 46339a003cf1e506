"""Dimensions besides the batch that stay free: found, asked for, measured, or refused with what to type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.errors import BuildError
from build_engine.graph import dimensions, feeds
from build_engine.load.free import check_fixed, find_free, parse_dimension
from build_engine.load.onnx_file import load_onnx
from engine.manifest import FreeDimension

value = helper.make_tensor_value_info


def load(folder: Path, model: onnx.ModelProto, **given: int) -> onnx.ModelProto:
    onnx.save(model, folder / "m.onnx")
    return load_onnx(folder / "m.onnx", (), None, sizes(**given))[0]


def sizes(**given: int) -> dict[str, FreeDimension]:
    return {name: FreeDimension(usual=largest, largest=largest) for name, largest in given.items()}


def made(
    nodes: list[onnx.NodeProto], inputs: list[object], outputs: list[object], **constants: object
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.array(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def sequence() -> onnx.ModelProto:
    """`doubled` (batch, length) = `ids` + `ids`."""
    node = helper.make_node("Add", ["ids", "ids"], ["doubled"])
    shape = ["batch", "length"]
    return made([node], [value("ids", TensorProto.INT64, shape)], [value("doubled", TensorProto.INT64, shape)])


def pooled() -> onnx.ModelProto:
    """`y` (N, 3, H/2, W/2) = max pooling of `x` (N, 3, H, W), no dimension named."""
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    shape = [None, 3, None, None]
    return made([node], [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)])


def hits() -> onnx.ModelProto:
    """`where` (1, hits) = the places of `x` (n) that are above one half."""
    nodes = [helper.make_node("Greater", ["x", "half"], ["above"]), helper.make_node("NonZero", ["above"], ["where"])]
    outputs = [value("where", TensorProto.INT64, [1, "hits"])]
    return made(nodes, [value("x", TensorProto.FLOAT, ["n"])], outputs, half=np.float32(0.5))


def test_what_inputs_choose_must_be_given_with_its_largest_size(tmp_path: Path) -> None:
    model = load(tmp_path, sequence())
    with pytest.raises(BuildError, match="dimension 'length' of input 'ids' is free") as caught:
        find_free(model, {}, 8)
    assert "--dimension length=1:128:512" in caught.value.remedy
    assert find_free(model, sizes(length=64), 8).by_name == sizes(length=64)


def test_what_follows_from_the_inputs_sizes_is_measured(tmp_path: Path) -> None:
    given = {name: FreeDimension(usual=10, largest=largest) for name, largest in (("x_2", 16), ("x_3", 32))}
    model = load(tmp_path, pooled(), x_2=16, x_3=32)
    assert [dimensions(one) for one in feeds(model)] == [("batch", 3, "x_2", "x_3")]
    (batch, _, rows, columns) = dimensions(model.graph.output[0])
    free = find_free(model, given, 4)
    assert batch == "batch"
    assert free.by_name == given | {
        rows: FreeDimension(usual=5, largest=8),
        columns: FreeDimension(usual=5, largest=16),
    }
    assert free.usual["x_3"] == 10


def test_what_depends_on_the_inputs_contents_must_be_given(tmp_path: Path) -> None:
    model = load(tmp_path, hits(), n=100)
    assert [dimensions(one) for one in feeds(model)] == [("n",)]
    with pytest.raises(BuildError, match="'hits' of output 'where' depends on what is in the inputs") as caught:
        find_free(model, sizes(n=100), 1)
    assert "--dimension hits=" in caught.value.remedy
    assert find_free(model, sizes(n=100, hits=100), 1).by_name == sizes(n=100, hits=100)


def test_the_length_of_a_list_is_not_taken_for_the_batch(tmp_path: Path) -> None:
    boxes, scores = value("boxes", TensorProto.FLOAT, ["N", 8, 4]), value("scores", TensorProto.FLOAT, ["N", 1, 8])
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["chosen"], "suppress")
    chosen = value("chosen", TensorProto.INT64, ["found", 3])
    model = load(tmp_path, made([node], [boxes, scores], [chosen], most=np.array([8], np.int64)))
    assert dimensions(model.graph.output[0])[0] != "batch"
    with pytest.raises(BuildError, match="which NonMaxSuppression 'suppress' makes, and plans have fixed sizes"):
        check_fixed(model, "plans have fixed sizes")


def test_inputs_of_different_lengths_may_be_no_batch(tmp_path: Path) -> None:
    inputs = [value(name, TensorProto.FLOAT, [first, 2]) for name, first in (("query", "N"), ("keys", "M"))]
    node = helper.make_node("Gemm", ["query", "keys"], ["scores"], transB=1)
    model = made([node], inputs, [value("scores", TensorProto.FLOAT, ["N", "M"])])
    with pytest.raises(BuildError, match="must be one batch") as caught:
        load(tmp_path, model)
    assert "--dimension N=100" in caught.value.remedy
    loaded = load(tmp_path, model, M=10)
    assert [dimensions(one) for one in (*feeds(loaded), *loaded.graph.output)] == [
        ("batch", 2),
        ("M", 2),
        ("batch", "M"),
    ]


def test_a_dimension_that_is_not_there_is_an_error_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no dimension lenght is free") as caught:
        find_free(load(tmp_path, sequence()), sizes(length=8, lenght=8), 1)
    assert caught.value.remedy == "those that are: length"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("a=5", (1, 5, 5)),
        ("a.b/c=5:9", (1, 5, 9)),
        ("x=y=1:1", (1, 1, 1)),
        ("height=32:384:1080", (32, 384, 1080)),
        ("n=0:1:2", (0, 1, 2)),
    ],
)
def test_a_dimension_is_read(text: str, sizes: tuple[int, int, int]) -> None:
    name, found = parse_dimension(text)
    smallest, usual, largest = sizes
    assert name == text.rpartition("=")[0]
    assert found == FreeDimension(smallest=smallest, usual=usual, largest=largest)


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        ("a", "says no size", "--dimension length=1:128:512 (smallest, usual and largest size)"),
        ("a=", "says no size", "--dimension a=1:128:512"),
        ("=5", "says no size", "--dimension length=1:128:512"),
        ("a=-1", "says no size", "--dimension a=1:128:512"),
        ("a=five", "says no size", "--dimension a=1:128:512"),
        ("a=1:2:3:4", "says no size", "--dimension a=1:128:512"),
        ("a=1::3", "says no size", "--dimension a=1:128:512"),
        ("a=²", "says no size", "--dimension a=1:128:512"),
        ("batch=8", "the batch has a flag of its own", "--max-batch 8"),
        ("a=0", "size of 0 is no size", "--dimension a=1:1:1;"),
        ("a=0:5", "size of 0 is no size", "--dimension a=1:1:5;"),
        ("a=0:0:5", "size of 0 is no size", "--dimension a=0:1:5;"),
        ("a=9:5", "the smallest size is 1, the usual one 9, the largest 5", "--dimension a=1:5:9"),
        ("a=4:9:5", "the smallest size is 4, the usual one 9, the largest 5", "--dimension a=4:5:9"),
        ("a=7:6:8", "the smallest size is 7, the usual one 6, the largest 8", "--dimension a=6:7:8"),
    ],
)
def test_a_dimension_that_cannot_be_says_what_to_type(text: str, words: str, remedy: str) -> None:
    with pytest.raises(BuildError, match=words) as caught:
        parse_dimension(text)
    assert remedy in caught.value.remedy
