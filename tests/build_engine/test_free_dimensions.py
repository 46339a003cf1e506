"""From a model with free dimensions to a bundle with a plan: the same sizes in flag, manifest, profile and key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.__main__ import main
from engine.bundle import Bundle
from engine.manifest import FreeDimension
from tests.engine.tensorrt.test_profile import in_order

pytest.importorskip("tensorrt_rtx", reason="pip install 'monocoque[rtx]'")
SIZES = ["--dimension", "height=17:35:71", "--dimension", "width=19:53:97"]


def save(folder: Path, nodes: list[onnx.NodeProto], output: onnx.ValueInfoProto) -> Path:
    """A network of `image` (N, 3, height, width) with two convolutions in branches, and what follows them."""
    node = helper.make_node
    weight = np.random.default_rng(0).standard_normal
    branches = [
        node("Conv", ["image", "w3"], ["a"], name="a", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        node("Conv", ["image", "w1"], ["b"], name="b", kernel_shape=[1, 1], strides=[2, 2]),
        node("Add", ["a", "b"], ["sum"], name="sum"),
        node("Relu", ["sum"], ["half"], name="relu"),
    ]
    graph = helper.make_graph(
        [*branches, *nodes],
        "pyramid",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "height", "width"])],
        [output],
        [numpy_helper.from_array((0.1 * weight((8, 3, size, size))).astype(np.float32), f"w{size}") for size in (1, 3)],
    )
    path = folder / "pyramid.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def pyramid(folder: Path) -> Path:
    shape = ["N", 8, None, None]
    return save(
        folder,
        [helper.make_node("Sigmoid", ["half"], ["heat"], name="head")],
        helper.make_tensor_value_info("heat", TensorProto.FLOAT, shape),
    )


def build(*arguments: object) -> int:
    return main(["build", *map(str, arguments), "--latency-seconds", "0"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_plan_takes_every_size_that_the_manifest_says(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SIZES, "--max-batch", 2, "--precision", precision, "--target", "cpu", "--target", "rtx"]
    assert build(pyramid(tmp_path), "-o", tmp_path / "bundle", *options) == 0, capsys.readouterr().err
    bundle = Bundle.open(tmp_path / "bundle")
    chosen = {name: bundle.manifest.dimensions[name] for name in ("height", "width")}
    assert chosen == {
        "height": FreeDimension(smallest=17, usual=35, largest=71),
        "width": FreeDimension(smallest=19, usual=53, largest=97),
    }
    told = [bundle.manifest.dimensions[name] for name in bundle.manifest.outputs[0].free]
    assert [(sizes.usual, sizes.largest) for sizes in told] == [(18, 36), (27, 49)]
    (plan,) = bundle.manifest.plans
    assert plan.graph == ("float" if precision == "fp32" else "trt-fp16")
    assert in_order(bundle.read(plan.path), (1, 3, 17, 19), (2, 3, 35, 53), (2, 3, 71, 97))
    assert "height=17:35:71" in plan.key["dimensions"]
    memory = json.loads(bundle.read("report.json"))["memory"]
    assert memory[1]["account"] == "TensorRT-RTX's activation memory, batch 2, height 71, width 97"
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "bundle")]) == 0
    said = capsys.readouterr().out
    assert "height: 17 to 71, usually 35" in said
    assert f"{bundle.manifest.outputs[0].free[0]}: up to 36, usually 18" in said


def test_the_same_sizes_give_the_same_bytes(tmp_path: Path) -> None:
    model = pyramid(tmp_path)
    for name in ("one", "other"):
        assert build(model, "-o", tmp_path / name, *SIZES, "--target", "rtx") == 0
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("one", "other")]
    assert manifests[0] == manifests[1]
    assert json.loads(manifests[0])["plans"]


@pytest.mark.parametrize("target", ["rtx", "jetson-orin"])
def test_sizes_that_are_missing_are_asked_for_with_the_flag(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(pyramid(tmp_path), "-o", tmp_path / "bundle", *SIZES[:2], "--target", target) == 2
    said = capsys.readouterr().err
    assert "dimension 'width' of input 'image' is free at run time" in said
    assert "--dimension width=1:128:512" in said
    assert not (tmp_path / "bundle").exists()


def test_sizes_at_which_the_model_computes_nothing_are_refused_before_a_plan_promises_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = helper.make_node("AveragePool", ["half"], ["heat"], name="pool", kernel_shape=[9, 9])
    shape = ["N", 8, None, None]
    model = save(tmp_path, [pool], helper.make_tensor_value_info("heat", TensorProto.FLOAT, shape))
    options = ["-o", tmp_path / "bundle", *SIZES[:2], "--target", "rtx"]
    assert build(model, *options, "--dimension", "width=97") == 2
    said = capsys.readouterr().err
    assert "the smallest sizes that are to be served are height 17, width 1, and the model fails on inputs" in said
    assert "--dimension height=MIN:35:71 --dimension width=MIN:97:97" in said
    assert build(model, *options, "--dimension", "width=17:97:97") == 0


def test_sizes_that_are_too_large_for_the_model_are_refused_for_every_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        helper.make_node("Shape", ["image"], ["columns"], name="shape", start=3, end=4),
        helper.make_node("Slice", ["places", "start", "columns"], ["some"], name="slice"),
        helper.make_node("Add", ["image", "some"], ["heat"], name="add"),
    ]
    output = helper.make_tensor_value_info("heat", TensorProto.FLOAT, ["N", 3, "height", "width"])
    path = save(tmp_path, nodes, output)
    model = onnx.load(path)
    places = {"places": np.ones(90, np.float32), "start": np.array([0])}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in places.items())
    onnx.save(model, path)
    for target in ("cpu", "rtx"):
        assert build(path, "-o", tmp_path / "bundle", *SIZES, "--target", target) == 2
        said = capsys.readouterr().err
        assert "the largest sizes that are to be served are height 71, width 97, and the model fails on inputs" in said
        assert "--dimension height=17:USUAL:LARGEST --dimension width=19:USUAL:LARGEST" in said
    assert build(path, "-o", tmp_path / "bundle", *SIZES[:3], "width=19:53:90", "--target", "rtx") == 0


def test_a_plan_cannot_make_a_list_that_is_as_long_as_the_run_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(
        tmp_path,
        [
            helper.make_node("Cast", ["half"], ["found"], name="found", to=TensorProto.BOOL),
            helper.make_node("NonZero", ["found"], ["places"], name="where"),
        ],
        helper.make_tensor_value_info("places", TensorProto.INT64, [4, "hits"]),
    )
    sizes = [*SIZES, "--dimension", "hits=100000"]
    assert build(model, "-o", tmp_path / "bundle", *sizes, "--target", "rtx") == 2
    said = capsys.readouterr().err
    assert "only a run tells dimension 'hits' of output 'places', which NonZero 'where' makes" in said
    assert "a plan for rtx knows only sizes that follow from the inputs'" in said
    assert build(model, "-o", tmp_path / "bundle", *sizes, "--target", "cpu") == 0
