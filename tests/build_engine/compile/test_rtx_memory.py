from __future__ import annotations

import onnx
import pytest

from build_engine.compile import rtx_memory as module
from build_engine.compile.rtx_memory import rtx_memory
from engine.errors import RuntimeUnavailable


def test_the_account_shrinks_with_fusion_and_with_fp16(
    camera_detector: onnx.ModelProto, fused_detector: onnx.ModelProto
) -> None:
    trained, fused, single = (
        rtx_memory(camera_detector),
        rtx_memory(fused_detector),
        rtx_memory(fused_detector, half=False),
    )
    assert trained and fused and single
    assert 0 < fused.own_activation_bytes < trained.own_activation_bytes
    assert fused.own_activation_bytes < single.own_activation_bytes
    assert fused.kernels < trained.kernels


def test_without_the_library_there_is_no_account(
    fused_detector: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise RuntimeUnavailable("not installed", remedy="install it")

    monkeypatch.setattr(module, "build_plan", missing)
    assert rtx_memory(fused_detector) is None
