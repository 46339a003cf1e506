from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build_engine.graph import serialize
from build_engine.options import BuildOptions
from build_engine.outcome import Built
from build_engine.pipeline import build
from tests.build_engine.conftest import CAMERA


def sureness(run: Any) -> dict[str, float]:
    """How sure a detector is of noise: rounding moves it, and wherever it goes, one figure is worse."""
    draw = np.random.default_rng(0)
    heat = np.concatenate([run(draw.integers(0, 256, (1, 64, 96, 3), np.uint8))["heat"] for _ in range(4)])
    return dict.fromkeys(("sureness", "sureness_error"), float(heat.mean()))


@pytest.fixture(scope="session")
def built(
    detector: onnx.ModelProto, frames_folder: Path, postprocessing_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """A build whose budget keeps some layers out."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "detector.onnx").write_bytes(serialize(detector))
    options = BuildOptions(
        model=str(folder / "detector.onnx"),
        output=folder / "bundle",
        precision="int8",
        calibration_data=frames_folder,
        calibration_frames=16,
        calibration_method="entropy",
        max_accuracy_drop=50.0,
        search_cache=folder / "cache",
        metric=f"{__name__}:sureness",
        targets=("cpu", "rtx"),
        camera=CAMERA,
        postprocess=postprocessing_file,
        max_batch=2,
        latency_seconds=0,
    )
    everything = build(options)
    assert everything.lowered is not None and everything.lowered.found is not None
    return build(replace(options, max_accuracy_drop=0.7 * everything.lowered.found.drop))
