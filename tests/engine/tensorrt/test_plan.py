"""Real compiles: TensorRT-RTX needs no GPU for them."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from onnx import TensorProto, helper

from engine.bundle import sha256
from engine.errors import BuildFailed, RuntimeUnavailable
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan
from tests.engine.graphs import HEIGHT, WIDTH, camera_network, constant, model, weight

rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'monocoque[rtx]'")
FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
node = helper.make_node


@pytest.fixture(scope="module")
def plan() -> CompiledPlan:
    return build_plan(camera_network(), "rtx", PlanOptions(max_batch=4))


def test_a_plan_says_what_it_takes_and_which_kernels_it_has(plan: CompiledPlan) -> None:
    assert len(plan.data) > 1000
    assert plan.activation_bytes > 4 * 8 * HEIGHT // 2 * WIDTH // 2 * 4
    assert plan.weights_bytes >= 4 * (8 * 3 * 9 + 8 * 8 * 9)
    assert plan.build_seconds > 0
    assert plan.timing_cache is None
    sources = [source for layer in plan.layers for source in layer.sources]
    assert {"cast", "transpose", "stage1/conv", "stage1/relu", "stage2/conv"} <= set(sources)
    assert all(layer.name for layer in plan.layers)
    assert 2 <= len(plan.layers) <= 8


def test_the_key_names_everything_that_the_plan_depends_on(plan: CompiledPlan) -> None:
    assert plan.key == {
        "runtime": "tensorrt-rtx",
        "runtime_version": rtx.__version__,
        "compute_capability": "any",
        "device_name": "any",
        "sm_count": "any",
        "memory_bytes": "any",
        "dla_core": "none",
        "max_batch": "4",
        "opt_batch": "4",
        "workspace_bytes": "none",
        "builder_optimization_level": "none",
        "tf32": "false",
        "timing_cache_sha256": "none",
        "graph_sha256": sha256(camera_network()),
    }


def test_the_same_graph_and_options_make_the_same_bytes() -> None:
    """For one batch size; for several, TensorRT-RTX orders its symbols by their addresses."""
    first = build_plan(camera_network(), "rtx")
    assert all(build_plan(camera_network(), "rtx").data == first.data for _ in range(3))


def test_the_same_graph_and_options_make_the_same_kernels(plan: CompiledPlan) -> None:
    again = build_plan(camera_network(), "rtx", PlanOptions(max_batch=4))
    assert (again.layers, again.activation_bytes, again.weights_bytes, again.key) == (
        plan.layers,
        plan.activation_bytes,
        plan.weights_bytes,
        plan.key,
    )


def test_progress_is_told_and_ends() -> None:
    told = []
    build_plan(camera_network(), "rtx", progress=lambda phase, step, steps: told.append((phase, step, steps)))
    assert all(0 <= step <= steps for _, step, steps in told)
    assert ("Building engine", 0, 6) in told
    assert told[-1][1] == told[-1][2]


def test_a_function_that_raises_stops_the_build() -> None:
    def stop(phase: str, step: int, steps: int) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(camera_network(), "rtx", progress=stop)


def test_a_static_graph_needs_no_profile() -> None:
    graph = model([node("Relu", ["x"], ["y"], name="relu")], [("x", FLOAT, [1, 8])], [("y", FLOAT, [1, 8])])
    assert build_plan(graph, "rtx").layers[0].sources == ("relu",)


def test_half_precision_is_in_the_graph() -> None:
    graph = model(
        [
            node("Cast", ["x"], ["half"], name="to_half", to=HALF),
            node("Mul", ["half", "half"], ["squared"], name="square"),
            node("Cast", ["squared"], ["y"], name="to_float", to=FLOAT),
        ],
        [("x", FLOAT, ["batch", 8])],
        [("y", FLOAT, ["batch", 8])],
    )
    assert build_plan(graph, "rtx").data


def test_quantized_networks_compile() -> None:
    """Symmetric activations, per-channel weights, no quantized bias: the recipe for TensorRT's targets."""
    graph = model(
        [
            node("QuantizeLinear", ["x", "sx", "zero"], ["xq"], name="q"),
            node("DequantizeLinear", ["xq", "sx", "zero"], ["xd"], name="dq"),
            node("DequantizeLinear", ["w", "sw", "zeros"], ["wd"], name="dq_weight", axis=0),
            node("Conv", ["xd", "wd"], ["y"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        ],
        [("x", FLOAT, ["batch", 8, 16, 16])],
        [("y", FLOAT, ["batch", 8, 16, 16])],
        [
            constant("sx", 0.05, "f4"),
            constant("zero", 0, "i1"),
            constant("w", [[[[1] * 3] * 3] * 8] * 8, "i1"),
            constant("sw", [0.01] * 8, "f4"),
            constant("zeros", [0] * 8, "i1"),
        ],
    )
    assert any("conv" in layer.sources for layer in build_plan(graph, "rtx").layers)


def test_compute_capabilities_are_in_the_key() -> None:
    options = PlanOptions(compute_capabilities=("12.0", "8.6"))
    assert build_plan(camera_network(), "rtx", options).key["compute_capability"] == "12.0,8.6"


@pytest.mark.parametrize("capability", ["8.7", "9.0", "99.9", "nonsense"])
def test_a_compute_capability_it_does_not_know(capability: str) -> None:
    options = PlanOptions(compute_capabilities=(capability,))
    with pytest.raises(BuildFailed, match=f"compute capability {capability}") as caught:
        build_plan(camera_network(), "rtx", options)
    assert "7.5, 8.0" in caught.value.remedy


def test_too_little_scratch_memory() -> None:
    with pytest.raises(BuildFailed, match="workspace") as caught:
        build_plan(camera_network(), "rtx", PlanOptions(workspace_bytes=1000))
    assert "workspace limit" in caught.value.remedy


BOXES = [("boxes", FLOAT, [1, 100, 4]), ("scores", FLOAT, [1, 1, 100])]
REFUSED = {
    "NonMaxSuppression": (
        model(
            [node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"], name="head/nms")],
            BOXES,
            [("kept", INT64, ["n", 3])],
            [constant("most", [10], "i8"), constant("iou", [0.5], "f4")],
        ),
        r"NonMaxSuppression \(node head/nms\): .*no runners that implement it",
        "MaxPool and TopK",
    ),
    "antialiased Resize": (
        model(
            [node("Resize", ["x", "", "", "sizes"], ["y"], name="down/resize", antialias=1, mode="linear")],
            [("x", FLOAT, [1, 3, 8, 8])],
            [("y", FLOAT, [1, 3, 4, 4])],
            [constant("sizes", [1, 3, 4, 4], "i8")],
            opset=18,
        ),
        r"Resize \(node down/resize\): .*Antialiasing is not supported",
        "antialias=0",
    ),
    "NonZero": (
        model([node("NonZero", ["x"], ["y"], name="where")], [("x", FLOAT, [3, 8])], [("y", INT64, [2, "n"])]),
        r"NonZero \(node where\): .*not found in plugin registry",
        "--target cpu",
    ),
    "an operator of ones own": (
        model(
            [node("Frobnicate", ["x"], ["y"], name="odd", domain="my.operators")],
            [("x", FLOAT, [1, 8])],
            [("y", FLOAT, [1, 8])],
        ),
        r"Frobnicate \(node odd\): .*Plugin not found",
        "replace the operator",
    ),
    "two types in one Add": (
        model(
            [node("Cast", ["x"], ["half"], name="cast", to=HALF), node("Add", ["x", "half"], ["y"], name="mixed")],
            [("x", FLOAT, [1, 8])],
            [("y", FLOAT, [1, 8])],
        ),
        r"Add \(node mixed\): .*must have same input types",
        "cast both inputs",
    ),
    "a node without a name": (
        model(
            [node("Cast", ["x"], ["half"], to=HALF), node("Add", ["x", "half"], ["y"])],
            [("x", FLOAT, [1, 8])],
            [("y", FLOAT, [1, 8])],
        ),
        r"Add \(node number 1, unnamed\)",
        "cast both inputs",
    ),
    "asymmetric activations": (
        model(
            [
                node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
                node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dequantize"),
            ],
            [("x", FLOAT, [1, 8])],
            [("y", FLOAT, [1, 8])],
            [constant("scale", 0.1, "f4"), constant("zero", 3, "i1")],
        ),
        r"zero point",
        "symmetrically",
    ),
    "another free dimension": (
        model(
            [node("Relu", ["x"], ["y"], name="relu")],
            [("x", FLOAT, ["batch", "width"])],
            [("y", FLOAT, ["batch", "width"])],
        ),
        r"no optimization profile fits input 'x' of shape \[-1, -1\]: the sizes of width are not known",
        "--dimension width=1:128:512; or fix them with --input-shape",
    ),
    "no network": (b"this is no ONNX file", "finds no network in these 20 bytes", "inspect"),
    "nothing": (b"", "finds no network in these 0 bytes", "inspect"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_refusal_says_what_where_and_what_to_do(case: str) -> None:
    graph, words, remedy = REFUSED[case]
    with pytest.raises(BuildFailed, match=words) as caught:
        build_plan(graph, "rtx")
    assert remedy in caught.value.remedy
    assert "cudaError 35" not in str(caught.value)


HANG_SECONDS = 900.0
"""Two plans take 13 s of a core, and took more than 120 where eleven processes shared two."""
COLLECTS_INSIDE_THE_LOGGER = """
import gc
import tensorrt_rtx
from engine.tensorrt.log import BuildLog
from engine.tensorrt.plan import build_plan
from tests.engine.graphs import camera_network

graph = camera_network()
gc.disable()
class Cycle:
    pass
cycle = Cycle()
cycle.builder, cycle.itself = tensorrt_rtx.Builder(tensorrt_rtx.Logger()), cycle
del cycle  # garbage that only a collection frees
BuildLog.add = lambda *_: gc.collect()
build_plan(graph, "rtx")
print("built", gc.isenabled())
gc.enable()
build_plan(graph, "rtx")
print("built", gc.isenabled())
"""


def test_an_older_builder_is_not_freed_inside_the_logger_where_tensorrt_would_wait_for_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS_INSIDE_THE_LOGGER],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_SECONDS,
    )
    assert done.stdout.split("\n")[:2] == ["built False", "built True"]


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="max_batch 2 and opt_batch 4"):
        PlanOptions(max_batch=2, opt_batch=4)
    with pytest.raises(ValueError, match="max_batch 0"):
        PlanOptions(max_batch=0)


@pytest.mark.parametrize(
    "change", [{"max_batch": 2}, {"tf32": True}, {"workspace_bytes": 1 << 30}, {"timing_cache": b"x"}]
)
def test_every_option_is_in_the_key(change: dict[str, Any]) -> None:
    assert replace(PlanOptions(), **change).key() != PlanOptions().key()


def test_the_cpu_has_no_plan() -> None:
    with pytest.raises(RuntimeUnavailable, match="does not use TensorRT"):
        build_plan(camera_network(), "cpu")


def test_the_key_is_plain_json(plan: CompiledPlan) -> None:
    assert json.loads(json.dumps(plan.key)) == plan.key


def test_weights_are_counted_once() -> None:
    wide = model(
        [node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[1, 1])],
        [("x", FLOAT, [1, 64, 8, 8])],
        [("y", FLOAT, [1, 64, 8, 8])],
        [weight("w", 64, 64, 1, 1)],
    )
    assert build_plan(wide, "rtx").weights_bytes == pytest.approx(64 * 64 * 4, rel=0.1)
