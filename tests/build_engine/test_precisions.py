from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build_engine.errors import BuildError
from build_engine.frames import Samples
from build_engine.graph import feeds, random_inputs, tensor_specs
from build_engine.lowered import Lowered
from build_engine.options import BuildOptions
from build_engine.outcome import Graph
from build_engine.precisions import lower
from build_engine.progress import Silent
from build_engine.session import Session


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def lowered(
    model: onnx.ModelProto, noting: Noting, metric: Any = None, **options: Any
) -> tuple[Lowered, Mapping[str, Graph]]:
    """Lower a detector's precision on four frames of noise."""
    inputs = [random_inputs(tensor_specs(feeds(model)), 1, seed) for seed in range(4)]
    asked = BuildOptions(
        model="m.onnx", output=Path("b"), calibration_method="percentile", metric="m:f" if metric else None, **options
    )
    names = tuple(str(number) for number in range(4))
    how, graphs = lower(asked, model, frozenset(), Samples(tuple(inputs), names), None, metric, noting)
    assert how is not None
    return how, {graph.name: graph for graph in graphs}


def test_a_processor_without_dot_products_of_bytes_is_a_warning(
    fused_detector: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("build_engine.precisions.cpu_features", lambda: frozenset({"avx2"}))
    noting = Noting()
    lowered(fused_detector, noting, precision="int8", targets=("cpu",))
    (note,) = noting.notes
    assert "none of avx_vnni, avx512_vnni, neon_dotprod: INT8 products saturate" in note
    assert "Build on one that has; to serve on one like this, build with --precision fp32" in note
    monkeypatch.setattr("build_engine.precisions.cpu_features", lambda: frozenset({"avx2", "avx_vnni"}))
    lowered(fused_detector, noting := Noting(), precision="int8", targets=("cpu",))
    assert not noting.notes


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
def test_every_precision_keeps_a_budget(fused_detector: onnx.ModelProto, tmp_path: Path, precision: str) -> None:
    """The metric here is how far the heatmap is from FP32's: lower precision costs a little everywhere."""
    frame = random_inputs(tensor_specs(feeds(fused_detector)), 1, 9)
    name = feeds(fused_detector)[0].name
    wanted = Session(fused_detector).run(frame)["heat"]

    def metric(run: Any) -> dict[str, float]:
        return {"likeness": 0.9 - float(np.abs(run(frame[name])["heat"] - wanted).mean())}

    asked = {"precision": precision, "targets": ("rtx",), "search_cache": tmp_path}
    everything, _ = lowered(fused_detector, Noting(), metric, max_accuracy_drop=20.0, **asked)
    assert everything.found is not None and not everything.found.kept and everything.found.drop > 0
    tight = 0.8 * everything.found.drop
    how, graphs = lowered(fused_detector, Noting(), metric, max_accuracy_drop=tight, **asked)
    assert how.found is not None and how.found.kept and how.found.drop <= tight
    reasons = graphs[f"trt-{precision}"].kept_float
    assert all(f"{precision.upper()} costs too much accuracy here" in reasons[layer] for layer in how.found.kept)
    every = Session(fused_detector).run(frame)

    def exact(run: Any) -> dict[str, float]:
        """What not even one layer in lower precision reaches, whichever output it leads to."""
        found = run(frame[name])
        return {"exact": 0.9 if all(np.array_equal(found[one], every[one]) for one in every) else 0.5}

    asked["search_cache"] = tmp_path / "exact"
    with pytest.raises(BuildError, match=f"cannot be kept in {precision.upper()}: the best reachable point"):
        lowered(fused_detector, Noting(), exact, max_accuracy_drop=1.0, **asked)


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_cpu_beside_a_gpu_is_served_in_fp32(fused_detector: onnx.ModelProto, precision: str) -> None:
    _, graphs = lowered(fused_detector, noting := Noting(), precision=precision, targets=("cpu", "jetson-thor"))
    assert noting.notes == [
        f"CPUs compute {precision.upper()} slower than FP32, if at all: target cpu is served by the float graph"
    ]
    assert graphs[f"trt-{precision}"].targets == ("jetson-thor",)
    assert graphs["float"].targets == ("cpu", "jetson-thor")
