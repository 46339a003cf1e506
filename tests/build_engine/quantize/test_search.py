from __future__ import annotations

import errno
import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_engine import quantize
from build_engine.errors import BuildError
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.progress import Advance, Silent
from build_engine.quantize import (
    CPU_INT8,
    PLAIN,
    TENSORRT_INT8,
    Choice,
    Core,
    Judge,
    Metric,
    Noise,
    Quantizer,
    Search,
    Store,
    best_choice,
    lower_precision_core,
)
from build_engine.quantize.candidate import Candidate
from build_engine.quantize.judge import Judgement, points_lost
from build_engine.quantize.search import RETURNS
from build_engine.quantize.store import Measured


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[str] = []

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Advance]:
        self.steps.append(title)
        return super().step(title, total)

    def note(self, text: str) -> None:
        self.notes.append(text)


RECIPES = (CPU_INT8, TENSORRT_INT8)


@pytest.fixture(scope="module")
def samples(fused_detector: onnx.ModelProto) -> list[dict[str, Any]]:
    return [random_inputs(tensor_specs(feeds(fused_detector)), 1, seed) for seed in range(8)]


@pytest.fixture(scope="module")
def core(fused_detector: onnx.ModelProto) -> Core:
    return lower_precision_core(fused_detector)


@pytest.fixture(scope="module")
def quantizer(fused_detector: onnx.ModelProto, core: Core, samples: list[dict[str, Any]]) -> Quantizer:
    return Quantizer(fused_detector, core, samples, RECIPES, Silent())


def searching(
    quantizer: Quantizer, samples: list[dict[str, Any]], store: Store, budget: float, progress: Noting, **judge: Any
) -> Search:
    model = quantizer.model
    choice = Choice("percentile")

    return Search(
        layers=quantizer.core.weighted,
        graphs=lambda kept: quantizer.candidates(choice.without(kept)),
        judge=Judge(model, samples, None, judge.get("metric"), store, progress),
        noise=Noise(model, quantizer.core, samples[:2], store),
        budget=budget,
        precision="INT8",
        store=store,
        progress=progress,
    )


def test_the_surface_is_this() -> None:
    constants = ["BF16", "CPU_INT8", "FP16", "METHODS", "PLAIN", "TENSORRT_FP8", "TENSORRT_INT8"]
    types = ["Choice", "Core", "Found", "HalfFormat", "Judge", "Judgement", "Limits", "Method", "Metric", "Noise"]
    types += ["Quantizer", "Ranges", "Recipe", "Search", "Store", "Tried"]
    functions = ["best_choice", "calibrate", "choose_limits", "emulated", "equalize", "fused_arithmetic"]
    functions += ["half_tensors", "layer_errors", "lower_precision_core", "quantized_nodes", "quantized_tensors"]
    functions += ["to_half", "to_int8"]
    assert quantize.__all__ == constants + types + functions


def test_the_best_choice_makes_less_noise_than_plain_quantization(
    quantizer: Quantizer, samples: list[dict[str, Any]]
) -> None:
    noise = Noise(quantizer.model, quantizer.core, samples, Store(None, Silent()))
    told: list[tuple[int, int]] = []
    choice, tried = best_choice(
        quantizer, noise, None, Silent(), lambda seconds, trials: told.append((len(seconds), trials))
    )
    assert told == [(len(RECIPES), len(tried) - 1)]
    assert tried[0].choice == PLAIN
    taken = next(one for one in tried if one.choice == choice)
    assert taken.worst < tried[0].worst and taken.worst == min(one.worst for one in tried)
    assert set(taken.noise) == {"cpu-int8", "trt-int8"}
    assert best_choice(quantizer, noise, "mse", Silent())[0].method == "mse"


def test_the_same_choice_makes_the_same_bytes(
    quantizer: Quantizer, fused_detector: onnx.ModelProto, core: Core, samples: list[dict[str, Any]]
) -> None:
    again = Quantizer(fused_detector, core, samples, RECIPES, Silent())
    choice = Choice("entropy", "activations", "learned")
    for recipe in RECIPES:
        assert serialize(quantizer.graph(choice, recipe)) == serialize(again.graph(choice, recipe))


def test_layers_out_of_int8_are_fp16_for_tensorrt_and_fp32_for_cpus(quantizer: Quantizer) -> None:
    layer = quantizer.core.weighted[1]
    for recipe, wanted in ((CPU_INT8, onnx.TensorProto.FLOAT), (TENSORRT_INT8, onnx.TensorProto.FLOAT16)):
        model = quantizer.graph(Choice("max", float_units=frozenset({layer})), recipe)
        weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        node = next(node for node in model.graph.node if node.name == layer)
        assert weights[node.input[1]] == wanted


def test_a_loose_budget_keeps_everything_and_a_tight_one_finds_fewest(
    quantizer: Quantizer, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    store = Store(tmp_path, Silent())
    loose = searching(quantizer, samples, store, 50.0, Noting()).run()
    assert not loose.kept and not loose.sensitivity and len(loose.trials) == 1
    progress = Noting()
    tight = searching(quantizer, samples, store, 0.7 * loose.drop, progress).run()
    assert 0 < len(tight.kept) < len(quantizer.core.weighted)
    assert tight.drop <= 0.7 * loose.drop
    assert set(tight.sensitivity) == set(quantizer.core.weighted)
    assert any("searching which of 4 layers" in note for note in progress.notes)
    assert {judgement.drop <= tight.drop for judgement in tight.judgements.values()} == {True}, "both graphs"
    measured = store.measured
    again = searching(quantizer, samples, store, 0.7 * loose.drop, Noting()).run()
    assert again == tight
    assert store.measured == measured, "everything was known"


@given(count=st.integers(6, 60), needed=st.sets(st.integers(0, 59), min_size=1, max_size=3), right=st.booleans())
def test_what_has_to_stay_out_stays_out_and_a_wrong_order_costs_few_layers(
    count: int, needed: set[int], right: bool
) -> None:
    layers = [f"layer{index}" for index in range(count)]
    costly = {f"layer{index % count}" for index in needed}
    made: dict[str, frozenset[str]] = {}

    def graphs(kept: frozenset[str]) -> dict[str, Candidate]:
        candidate = Candidate("graph", ",".join(sorted(kept)), onnx.ModelProto)
        made[candidate.identity] = kept
        return {"graph": candidate}

    def judge(candidate: Candidate, _enough: float) -> Judgement:
        drop = float(len(costly - made[candidate.identity]))
        return Judgement({"accuracy": 1 - drop / 100}, drop, "accuracy", 0.0)

    class Alone:
        def measured(self, candidate: Candidate) -> Measured:
            (alone,) = set(layers) - made[candidate.identity]
            return Measured({"noise": 2.0 + layers.index(alone) if (alone in costly) == right else 1.0}, 0.0)

    progress = Noting()
    search = Search(
        layers, graphs, cast(Judge, judge), cast(Noise, Alone()), 0.0, "INT8", Store(None, progress), progress
    )
    found = search.run()
    assert costly <= found.kept and found.drop == 0
    assert len(found.trials) <= 1 + math.ceil(math.log2(count + 1)) + RETURNS
    if right:
        assert found.kept == costly
    elif len(costly) == 1:
        assert len(found.kept) <= 0.6 * count, "half of those that cost nothing came back at once"
    assert f"{math.ceil(math.log2(count + 1)) + RETURNS} judgements" in progress.notes[0]


def test_a_second_search_makes_no_graph_that_was_measured(
    quantizer: Quantizer, core: Core, samples: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, Silent())
    budget = 0.7 * searching(quantizer, samples, store, 50.0, Noting()).run().drop
    found = searching(quantizer, samples, store, budget, Noting()).run()
    again = Quantizer(quantizer.model, core, samples, RECIPES, Silent())

    def refuse(*_: object) -> onnx.ModelProto:
        raise AssertionError("everything is known")

    monkeypatch.setattr(again, "graph", refuse)
    progress = Noting()
    assert searching(again, samples, Store(tmp_path, progress), budget, progress).run() == found
    assert "less what was measured before" in progress.notes[0]


def test_an_interrupted_search_goes_on_where_it_stopped(
    quantizer: Quantizer, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    calls = 0

    def metric(run: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        run(samples[0]["image"])
        return {"score": 1.0 if calls == 1 else 0.5}

    judge = Metric("tests:metric", metric, {}, "image")
    with pytest.raises(KeyboardInterrupt):
        searching(quantizer, samples, Store(tmp_path, Silent()), 1.0, Noting(), metric=judge).run()
    assert calls == 4 and len(list(tmp_path.glob("*.json"))) >= 3
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"], "nothing half-written"
    store = Store(tmp_path, Silent())
    with pytest.raises(BuildError, match="best reachable point is 50 points"):
        searching(quantizer, samples, store, 1.0, Noting(), metric=judge).run()
    assert store.found >= 3


def test_a_budget_that_cannot_be_kept_says_the_best_reachable_point(
    quantizer: Quantizer, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"best reachable point is .* points with 1 of 4 layers") as caught:
        searching(quantizer, samples, Store(tmp_path, Silent()), 0.0, Noting()).run()
    assert "--max-accuracy-drop" in caught.value.remedy and "most sensitive layers are" in caught.value.message


def test_a_metric_that_raises_or_returns_nan_is_a_clear_error(
    quantizer: Quantizer, samples: list[dict[str, Any]]
) -> None:
    def raising(run: Any) -> dict[str, float]:
        raise ZeroDivisionError("no labels")

    cases: list[tuple[Any, str]] = [
        (raising, "ZeroDivisionError: no labels"),
        (lambda run: {"mAP": math.nan}, "no finite number"),
        (lambda run: {}, "the metric returned {} on graph float"),
        (lambda run: None, "returned None on graph float, not one number or more by name"),
        (lambda run: {"mAP": "good"}, "returned {'mAP': 'good'}"),
    ]
    for function, says in cases:
        with pytest.raises(BuildError, match=says):
            searching(
                quantizer, samples, Store(None, Silent()), 1.0, Noting(), metric=Metric("m:f", function, {}, "image")
            )


def test_a_metric_that_is_nan_of_every_lower_precision_is_named(
    quantizer: Quantizer, samples: list[dict[str, Any]]
) -> None:
    figures = iter([{"mAP": 0.5}])
    metric = Metric("m:f", lambda run: next(figures, {"mAP": math.nan}), {}, "image")
    with pytest.raises(BuildError, match=r"beyond measure .* what limits it is a figure of the metric") as caught:
        searching(quantizer, samples, Store(None, Silent()), 1.0, Noting(), metric=metric).run()
    assert "--max-accuracy-drop" not in caught.value.remedy


def test_a_disk_that_fills_up_ends_no_search(
    quantizer: Quantizer, samples: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    progress = Noting()
    monkeypatch.setattr("build_engine.quantize.store.json.dump", full)
    store = Store(tmp_path / "cache", progress)
    found = searching(quantizer, samples, store, 50.0, progress).run()
    assert not found.kept
    assert len([note for note in progress.notes if "No space left on device" in note]) == 1
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_measurement_is_measured_again(tmp_path: Path) -> None:
    store = Store(tmp_path, Silent())
    known = Measured({"noise": 0.5}, 2.0)
    store.put("key", known)
    assert store.get("key") == known
    (tmp_path / "key.json").write_text('{"figures": {"noise": ')
    assert store.get("key") is None


def test_points() -> None:
    assert points_lost("mAP50", 0.85, 0.84) == pytest.approx(1.0)
    assert points_lost("distance_error", 0.10, 0.12) == pytest.approx(2.0), "less is better"
    assert points_lost("distance_error", 0.10, 0.08) < 0
    assert points_lost("mAP", 42.4, 42.0) == pytest.approx(0.943, abs=1e-3), "per cent of what FP32 reaches"


def test_equal_figures_for_every_graph(quantizer: Quantizer, samples: list[dict[str, Any]]) -> None:
    names = iter(["accuracy", "other"])
    metric = Metric("m:f", lambda run: {next(names): 1.0}, {}, "image")
    with pytest.raises(BuildError, match="returned no accuracy"):
        searching(quantizer, samples, Store(None, Silent()), 1.0, Noting(), metric=metric).run()
