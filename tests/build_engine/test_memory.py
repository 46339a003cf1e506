"""What fusing takes in memory; `python -m benchmarks.memory` measures it on 1.2 GB."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory import peak_bytes, write_model


@pytest.mark.parametrize("inside", [True, False])
def test_the_peak_is_the_new_weights_and_one_layers_arithmetic(tmp_path: Path, inside: bool) -> None:
    weights = write_model(tmp_path / "m.onnx", 120e6, inside=inside, channels=256)
    assert peak_bytes(tmp_path / "m.onnx", tmp_path / "o.onnx") <= 1.5 * weights
