"""The load generator: its arithmetic, and the command against a real server."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.bench.frames import load
from client.bench.record import Record, percentile, spread
from client.bench.schedule import constant_stream
from demo.serving import Serving
from tests.server.bundles import write_bundle

COMMAND = [sys.executable, "-W", "error", "-m", "client", "bench"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("server")
    with Serving(write_bundle(folder / "bundle"), folder / "server.log") as server:
        yield server


@pytest.fixture
def address(serving: Serving) -> str:
    return serving.address


def computed(serving: Serving) -> float:
    """Frames that the server has computed so far."""
    page = urllib.request.urlopen(serving.metrics, timeout=30).read().decode()
    rows = [line for line in page.splitlines() if line.startswith("monocoque_frames_total") and 'status="ok"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in rows)


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


@given(st.integers(1, 8), st.floats(0.5, 200), st.floats(0.1, 5), st.booleans())
def test_a_schedule_is_in_order_and_each_camera_keeps_its_rate(
    cameras: int, rate: float, seconds: float, together: bool
) -> None:
    shots = list(constant_stream(cameras, rate, seconds, together))
    due = [shot.due_ns for shot in shots]
    assert due == sorted(due)
    for camera in range(cameras):
        own = [shot.due_ns for shot in shots if shot.camera == camera]
        assert len(own) == round(rate * seconds)
        gaps = [later - earlier for earlier, later in itertools.pairwise(own)]
        assert all(abs(gap - 1e9 / rate) <= 1 for gap in gaps)


def test_together_means_at_once_and_else_spread() -> None:
    assert {shot.due_ns for shot in constant_stream(6, 1, 1, together=True)} == {0}
    assert len({shot.due_ns for shot in constant_stream(6, 1, 1)}) == 6


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9


def test_unanswered_frames_are_infinite() -> None:
    values = [1.0] * 98 + [math.inf] * 2
    assert percentile(values, 50) == 1.0
    assert percentile(values, 99) == math.inf
    assert spread(values)["p99"] == "Infinity"
    assert spread([])["p50"] is None
    json.dumps(spread(values), allow_nan=False)


def test_a_record_counts_every_frame_once_and_from_when_it_was_due() -> None:
    record = Record("x", "constant-stream", 1, 10.0, 1.0)
    for number in range(4):
        record.offer(number * 1_000_000, 0, number * 1_000_000 + 500)
    record.returned_ns[0], record.statuses[0] = 3_000_000, "ok"
    record.returned_ns[1], record.statuses[1] = 1_500_000, "stale"
    record.returned_ns[3], record.statuses[3] = 9_000_000, "ok"
    record.client_dropped = 1
    assert record.counts == {"ok": 2, "stale": 1, "client_dropped": 1, "unanswered": 0}
    assert record.computed_ms() == [3.0, 6.0]
    assert record.offered_ms() == [3.0, math.inf, math.inf, 6.0]
    assert record.peak_age_ms() == [9.0]
    assert max(record.lag_ms()) == 0.0005


def test_encodings_are_dealt_out_in_turn_and_frames_are_made_once() -> None:
    frames = load(3, ["jpeg", "nv12"], 64, 32, prefix="left")
    assert [camera.id for camera in frames.cameras] == ["left_0", "left_1", "left_2"]
    assert [camera.encoding for camera in frames.cameras] == ["jpeg", "nv12", "jpeg"]
    assert frames.frame(1, 0, None, 0).pixels is frames.frame(1, 4, None, 9).pixels
    assert frames.name == "jpeg,nv12 64x32"


def test_constant_stream_accounts_for_every_frame(address: str, tmp_path: Path) -> None:
    written, plot = tmp_path / "out.json", tmp_path / "out.png"
    done = run(
        "--server", address, "--cameras", "1,2", "--rate", "20,40", "--seconds", "0.5", "--warm-up", "0.1",
        "--encoding", "jpeg,rgb8", "--json", str(written), "--plot", str(plot),
    )  # fmt: skip
    assert "peak age" in done.stdout
    runs = json.loads(written.read_text())["runs"]
    assert [(found["cameras"], found["offered"]) for found in runs] == [(1, 10), (1, 20), (2, 20), (2, 40)]
    for found in runs:
        assert sum(found["counts"].values()) == found["offered"]
        assert found["latency_ms"]["p50"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("how", [[], ["--shared-memory"]])
def test_a_replay_leaves_no_frame_out(address: str, tmp_path: Path, how: list[str]) -> None:
    written = tmp_path / "out.json"
    run(
        "--server", address, "--policy", "replay", "--rate", "50", "--seconds", "0.5", "--json", str(written),
        "--encoding", "rgb8", *how,
    )  # fmt: skip
    (found,) = json.loads(written.read_text())["runs"]
    assert found["counts"]["ok"] == found["offered"] == 150


def test_overload_tells_what_the_engine_can_do(address: str, tmp_path: Path) -> None:
    written = tmp_path / "out.json"
    done = run("overload", "--server", address, "--cameras", "2", "--seconds", "0.5", "--json", str(written))
    (found,) = json.loads(written.read_text())["runs"]
    assert found["computed_per_second"] > 0
    assert found["offered_per_second"] == pytest.approx(2 * found["computed_per_second"], rel=0.01)
    assert "when it always has the next one" in done.stdout


def test_single_stream_and_the_same_under_loadgen(address: str, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="LoadGen has wheels for x86-64 only")
    written = tmp_path / "out.json"
    run("single-stream", "--server", address, "--seconds", "0.3", "--json", str(written))
    (found,) = json.loads(written.read_text())["runs"]
    assert found["counts"] == {"ok": found["offered"], "client_dropped": 0, "unanswered": 0}
    run("single-stream", "--server", address, "--seconds", "0.3", "--loadgen", str(tmp_path / "logs"))
    assert "SingleStream" in (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()


@pytest.mark.parametrize("extra", [[], ["single-stream"], ["single-stream", "--loadgen", "logs"]])
def test_ctrl_c_gives_the_partial_result(serving: Serving, tmp_path: Path, extra: list[str]) -> None:
    if "--loadgen" in extra:
        pytest.importorskip("mlperf_loadgen")
        extra = [*extra[:-1], str(tmp_path / "logs")]
    written = tmp_path / "out.json"
    command = [
        *COMMAND,
        *extra,
        "--server",
        serving.address,
        "--seconds",
        "600",
        "--warm-up",
        "0",
        "--json",
        str(written),
    ]
    before = computed(serving)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert "engine:" in process.stdout.readline()
    while computed(serving) < before + 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "interrupted" in out
    (found,) = json.loads(written.read_text())["runs"]
    assert found["interrupted"]
    assert 0 < found["offered"] < 600 * 180


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encoding", "gif"], "gif is none of jpeg"),
        (["--size", "12"], "write it as 1920x1080"),
        (["--cameras", "0"], "cameras are 1 to 1024"),
        (["--rate", "-1"], "a rate is between"),
    ],
)
def test_arguments_are_checked(arguments: list[str], words: str) -> None:
    assert words in run(*arguments, code=2).stderr


def test_what_cannot_be_done_is_said_before_anything_is_sent(address: str) -> None:
    assert "no frame is due" in run("--server", address, "--seconds", "0.01", code=2).stderr
    assert "LoadGen has no overload" in run("overload", "--server", address, "--loadgen", "x", code=2).stderr
    shared = run("single-stream", "--server", address, "--shared-memory", "--loadgen", "x", code=2)
    assert "leave --shared-memory out" in shared.stderr
    assert "nobody listens" in run("--server", "127.0.0.1:1", code=2).stderr
    assert "names no source" in run("--server", address, "--source", "/nowhere/at/all", code=2).stderr
