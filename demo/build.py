"""From the committed checkpoint to an engine bundle, by the commands that a person would type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from demo.errors import DemoError
from demo.steps import Steps
from surround import spec

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "surround" / "weights" / "surround.safetensors"
POSTPROCESSING = ROOT / "surround" / "postprocessing.json"

CALIBRATION_FRAMES = 96
"""Of towns seen in training; the held-out ones are for the accuracy alone."""

ACCURACY_FRAMES = 120
"""Held-out frames on which every precision is scored: enough to see a loss, quick enough for a demo."""


def render_calibration(steps: Steps, folder: Path) -> None:
    """Render the frames from which INT8 ranges are chosen.

    Raises:
        DemoError: The renderer failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    steps.run(["surround", "render", "-o", str(folder), "--frames", str(CALIBRATION_FRAMES), "--split", "train"])


def build_bundle(steps: Steps, weights: Path, calibration: Path, bundle: Path) -> None:
    """Fuse, quantize, compile and verify.

    Raises:
        DemoError: There are no weights, or the build failed.
    """
    if not weights.exists():
        raise DemoError(f"no checkpoint at {weights}\n  → python -m surround train   (about 40 minutes on two cores)")
    shutil.rmtree(bundle, ignore_errors=True)
    width, height = spec.INPUT_SIZE
    steps.run(
        [
            "build_engine", "build", "surround.model:deployed",
            "--weights", str(weights),
            "--input-shape", f"1,3,{height},{width}",
            "--mean", _numbers(spec.MEAN),
            "--std", _numbers(spec.STD),
            "--color", spec.COLOR,
            "--postprocess", str(POSTPROCESSING),
            "--precision", "int8",
            "--calibration-data", str(calibration),
            "--metric", "surround.evaluate:metric",
            "--metric-arg", f"frames={ACCURACY_FRAMES}",
            "--target", "cpu",
            "--target", "rtx",
            "--name", "surround",
            "-o", str(bundle),
        ]
    )  # fmt: skip


def read_report(bundle: Path) -> dict[str, Any]:
    """A bundle's `report.json`.

    Raises:
        DemoError: It has none.
    """
    try:
        report: dict[str, Any] = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DemoError(f"no report in {bundle}: {error}\n  → python -m demo   builds a bundle with one") from error
    return report


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
