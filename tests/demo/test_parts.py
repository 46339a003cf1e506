import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from client import Age, Detection, Frame, Ledger, Memory, Result
from demo.build import build_bundle
from demo.errors import DemoError
from demo.moments import HELD, Moments
from demo.serving import Serving
from demo.steps import Steps
from demo.summary import summarise, table
from engine.bundle import BundleWriter
from tests.server.bundles import write_bundle

IMAGE = np.zeros((4, 4, 3), np.uint8)


def result(camera_id: str, captured: int, *labels: str, ok: bool = True) -> Result:
    found = tuple(Detection(0, label, 0.9, 0, 0, 1, 1, 10.0) for label in labels)
    frame = Frame(camera_id, b"", context=IMAGE)
    return Result(
        camera_id, 0, captured, "ok" if ok else "stale", "", ok, "", found, {}, Ledger(), Age(0, 0, 0, False),
        Memory(0, 0, {}, 0), "", 1, frame=frame,
    )  # fmt: skip


def test_the_moment_with_most_to_see_is_kept() -> None:
    moments = Moments(["a", "b"])
    for captured, seen in enumerate([["car"], ["car", "truck", "cyclist"], ["car", "car"]]):
        moments.add(result("a", captured, *seen))
        moments.add(result("b", captured))
    best = moments.best()
    assert best is not None
    assert best.capture_time_ns == 1
    assert sorted(best.images) == ["a", "b"]


def test_a_complete_moment_is_better_than_a_crowded_one() -> None:
    moments = Moments(["a", "b"])
    moments.add(result("a", 0, "car", "truck", "cyclist", "pedestrian"))
    moments.add(result("a", 1))
    moments.add(result("b", 1))
    best = moments.best()
    assert best is not None
    assert best.capture_time_ns == 1


def test_moments_hold_few_images_however_long_the_drive() -> None:
    moments = Moments(["a", "b"])
    for captured in range(100):
        moments.add(result("a", captured))
        assert len(moments._open) <= HELD
    assert moments.best() is not None


def test_without_results_there_is_no_moment() -> None:
    moments = Moments(["a"])
    moments.add(result("a", 0, ok=False))
    assert moments.best() is None


def steps() -> Steps:
    return Steps(Console(), total=1)


def test_a_step_that_fails_says_how_to_run_it_alone() -> None:
    with pytest.raises(DemoError, match=r"exit code 2 of the command above\n.*python -m client engine --server"):
        steps().run(["client", "engine", "--server", "127.0.0.1:1"])


def test_missing_weights_say_how_to_train(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"no checkpoint at .*none\.safetensors\n.*surround train"):
        build_bundle(steps(), tmp_path / "none.safetensors", tmp_path, tmp_path / "bundle")


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(DemoError, match=r"exit code .*\n.*server\.log, ends with:"),
        Serving(tmp_path / "none", tmp_path / "server.log"),
    ):
        pass


def test_a_server_is_never_left_running(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    with pytest.raises(Stop), Serving(write_bundle(tmp_path / "bundle"), tmp_path / "server.log") as server:
        assert server.address.startswith("127.0.0.1:")
        raise Stop
    assert server._process.poll() is not None


REPORT = {
    "headline": "Two blocks fused.",
    "machine": {"processor": "a CPU", "cores": 2, "system": "Linux", "threads": 1},
    "fusion": {"before": {"nodes": 40}, "after": {"nodes": 10}, "verification": {}},
    "memory": [{"account": "peak of live tensors", "compiled": False, "bytes": {"unfused": 2 << 20, "float": 1 << 20}}],
    "compiled": [{"target": "rtx", "graph": "float", "layers": [1, 2]}],
    "latency": [
        {"graph": "unfused", "batch": 1, "median_ms": 30.0},
        {"graph": "float", "batch": 1, "median_ms": 20.0},
        {"graph": "float", "batch": 8, "median_ms": 160.0},
        {"graph": "cpu-int8", "batch": 1, "median_ms": 10.0},
    ],
    "accuracy": {
        "graphs": [
            {"graph": "float", "metric": {"mAP50": 0.81}, "detections_f1": None},
            {"graph": "cpu-int8", "metric": {"mAP50": 0.80}, "detections_f1": 0.987},
        ]
    },
}
DRIVE = {
    "seconds": 20.0,
    "engine": {"precision": "int8", "backend": "onnxruntime 1.32"},
    "cameras": {
        "front": {},
        "all": {
            "fps": 36.0,
            "latency_ms": {"p50": 21.0, "p99": 55.0},
            "age_ms": {"p50": 31.0, "p99": 65.0},
            "submitted": 720,
            "client_dropped": 2,
            "undelivered": 0,
            "statuses": {"ok": 717, "stale": 1},
        },
    },
}


def test_the_table_says_what_was_gained_and_what_was_lost() -> None:
    summary = summarise(REPORT, DRIVE, {"exit_code": 0, "stop_seconds": 0.4}, {"build": 60.0})
    console = Console(width=160, record=True)
    console.print(table(summary))
    text = console.export_text()
    for part in (
        "40 operators → 10, 75% less",
        "2.0 MiB → 1.0 MiB, 50% less",
        "as trained 30.0 ms → FP32 20.0 ms → INT8 10.0 ms (this CPU, 1 thread, one frame)",
        "mAP50 0.800; detections as FP32's at F1 0.987",
        "1 cameras, 36.0 frames/s for 20 s, int8 on onnxruntime 1.32",
        "p50 21.0 ms, p99 55.0 ms",
        "720 taken: 717 ok, 1 stale; 2 dropped by the client, 0 without an answer",
        "exit code 0",
    ):
        assert part in text
    assert "layers" not in json.dumps(summary["compiled"])


def test_the_whole_demo_on_a_small_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = BundleWriter.write

    def with_report(writer: BundleWriter, path: Path, manifest: Any, reports: Any) -> None:
        write(writer, path, manifest, {**reports, "report.json": json.dumps(REPORT).encode()})

    monkeypatch.setattr(BundleWriter, "write", with_report)
    bundle = write_bundle(tmp_path / "bundle")
    output = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--bundle", str(bundle), "-o", str(output), "--seconds", "2", "--fps", "3"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Monocoque, end to end" in done.stdout
    summary = json.loads((output / "summary.json").read_text())
    assert summary["server"]["exit_code"] == 0
    assert summary["drive"]["cameras"]["all"]["undelivered"] == 0
    assert len(summary["drive"]["cameras"]) == 7
    assert all(row["statuses"].get("ok", 0) > 0 for row in summary["drive"]["cameras"].values())
    for name in ("mosaic.png", "latency.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_the_command_fails_with_a_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--bundle", str(tmp_path / "none"), "-o", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
