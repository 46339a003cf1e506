from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_engine.graph import constants
from build_engine.progress import Silent
from build_engine.quantize.statistics import patches
from build_engine.quantize.tune import round_to, tune, weight_scales
from build_engine.session import Session


def convolution(groups: int, **attributes: object) -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    weight = numpy_helper.from_array(draw.normal(size=(6, 4 // groups, 3, 3)).astype(np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=groups, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 9, 11])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 18)]
    )


SAMPLES = [{"x": np.random.default_rng(seed).exponential(size=(1, 4, 9, 11)).astype(np.float32)} for seed in range(4)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 2]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ],
    ids=str,
)
def test_the_mean_patch_predicts_the_mean_output(groups: int, attributes: dict[str, object]) -> None:
    model = convolution(groups, **attributes)
    seen = patches(model, ["conv"], SAMPLES, Silent())["conv"]
    rows = constants(model)["w"].reshape(groups, 6 // groups, -1)
    predicted = np.einsum("gop,gp->go", rows, seen.mean).reshape(-1)
    session = Session(model)
    found = np.mean([session.run(sample)["y"].mean(axis=(0, 2, 3)) for sample in SAMPLES], axis=0)
    np.testing.assert_allclose(predicted, found, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), correlated=st.floats(0, 0.99))
def test_learned_rounding_is_never_worse_than_the_nearest(seed: int, correlated: float) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(3, 18))
    inputs = draw.normal(size=(200, 18)) * (1 - correlated) + draw.normal(size=(200, 1)) * correlated
    moments = inputs.T @ inputs / len(inputs)
    scale = weight_scales(rows[None])[0]
    nearest, learned = np.round(rows / scale) * scale, round_to(rows, scale, moments)

    def loss(rounded: np.ndarray) -> np.ndarray:
        error = rounded - rows
        return np.einsum("op,pq,oq->o", error, moments + 1e-2 * np.trace(moments) / 18 * np.eye(18), error)

    assert (loss(learned) <= loss(nearest) + 1e-12).all()
    steps = learned / scale
    assert np.abs(steps - np.round(steps)).max() < 1e-6 and np.abs(steps).max() <= 127 + 1e-6
    assert np.abs(learned - rows).max() < scale.max() + 1e-9, "up or down, no further"


def test_it_pays_where_inputs_go_together() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(8, 36))
    inputs = draw.exponential(size=(500, 1)) + 0.1 * draw.normal(size=(500, 36))
    scale = weight_scales(rows[None])[0]
    errors = {
        "nearest": np.round(rows / scale) * scale - rows,
        "learned": round_to(rows, scale, inputs.T @ inputs / 500) - rows,
    }
    noise = {name: float(np.square(inputs @ error.T).mean()) for name, error in errors.items()}
    assert noise["learned"] < 0.3 * noise["nearest"]


def test_bias_correction_leaves_no_mean_error() -> None:
    model = convolution(1, pads=[1] * 4)
    seen = patches(model, ["conv"], SAMPLES, Silent())
    weight = constants(model)["w"]
    for learned in (False, True):
        tuned = tune(model, seen, learn_rounding=learned)["conv"]
        scale = np.abs(tuned.weight).max(axis=(1, 2, 3), keepdims=True) / 127
        rounded = np.round(tuned.weight / scale) * scale
        assert tuned.bias is not None
        error = (rounded - weight).reshape(6, -1) @ seen["conv"].mean[0] + tuned.bias
        assert np.abs(error).max() < 1e-5


def test_learned_weights_survive_the_quantizers_own_rounding() -> None:
    model = convolution(1)
    tuned = tune(model, patches(model, ["conv"], SAMPLES, Silent()), learn_rounding=True)["conv"]
    scale = np.abs(constants(model)["w"]).max(axis=(1, 2, 3), keepdims=True) / 127
    steps = tuned.weight / scale
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    np.testing.assert_allclose(np.abs(tuned.weight).max(axis=(1, 2, 3)), 127 * scale.ravel(), rtol=1e-6)
