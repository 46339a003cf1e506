from __future__ import annotations

import onnx
import pytest

from build_engine.compile import tensorrt
from build_engine.compile.tensorrt import compile_graph
from build_engine.graph import serialize
from build_engine.progress import Silent
from engine.errors import RuntimeUnavailable
from engine.tensorrt.plan import PlanOptions


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_rtx_compiles_without_a_gpu_and_says_what_it_takes(
    camera_detector: onnx.ModelProto, fused_detector: onnx.ModelProto
) -> None:
    trained = compile_graph("unfused", serialize(camera_detector), "rtx", PlanOptions(max_batch=2), Silent())
    fused = compile_graph("float", serialize(fused_detector), "rtx", PlanOptions(max_batch=2), Silent())
    assert trained is not None and fused is not None
    assert len(fused.plan.layers) < len(trained.plan.layers)
    assert fused.plan.activation_bytes is not None and trained.plan.activation_bytes is not None
    assert fused.plan.activation_bytes < trained.plan.activation_bytes


def refuse(*_: object, **__: object) -> None:
    raise RuntimeUnavailable("no GPU here", remedy="plug one in")


def test_a_plan_that_cannot_be_compiled_here_is_left_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "build_plan", refuse)
    noting = Noting()
    assert compile_graph("float", b"", "gpu", PlanOptions(max_batch=1), noting) is None
    assert "compiled on the device" in noting.notes[0] and "no GPU here" in noting.notes[0]


def test_a_missing_tensorrt_rtx_is_an_error_since_it_could_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "build_repeatably", refuse)
    with pytest.raises(RuntimeUnavailable):
        compile_graph("float", b"", "rtx", PlanOptions(max_batch=1), Silent())
