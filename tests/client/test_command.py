import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from protos.monocoque.v1.result_pb2 import STATUS_REFUSED
from tests.client.scripted import Context, Script, answer, credit, serving_in_thread, well_behaved

COMMAND = [sys.executable, "-W", "error", "-m", "client"]


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Two cameras, eight images each."""
    for camera in ("left", "right"):
        (tmp_path / "drive" / camera).mkdir(parents=True)
        for number in range(8):
            cv2.imwrite(str(tmp_path / "drive" / camera / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    return tmp_path / "drive"


@pytest.mark.parametrize("arguments", [["--help"], ["stream", "--help"], ["watch", "--help"], ["engine", "--help"]])
def test_help_teaches(arguments: list[str]) -> None:
    text = run(*arguments).stdout
    assert "--server" in text or "python -m client stream surround" in text


def test_a_replay_streams_every_image_writes_pictures_and_sums_up(drive: Path, tmp_path: Path) -> None:
    script = Script(well_behaved)
    with serving_in_thread(script) as address:
        saved, video = tmp_path / "out", tmp_path / "out.mp4"
        done = run(
            "stream", str(drive), "--server", address, "--policy", "replay", "--save", str(saved),
            "--save-video", str(video), "--json",
        )  # fmt: skip
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    assert summary["cameras"]["left"]["statuses"] == {"ok": 8}
    assert summary["cameras"]["all"]["sent"] == 16
    assert summary["cameras"]["all"]["undelivered"] == 0
    assert summary["engine"]["name"] == "scripted"
    assert set(summary["stages_ms"]) >= {"transport", "inference", "returned"}
    assert sorted(path.name for path in (saved / "left").iterdir()) == [f"{number:06d}.jpg" for number in range(8)]
    assert cv2.imread(str(saved / "mosaic.png")) is not None
    capture = cv2.VideoCapture(str(video))
    assert capture.read()[0]
    assert {tuple(camera.id for camera in opened.cameras) for opened in script.opens} == {("left", "right")}
    assert script.opens[0].tensors == ["drivable"]


def test_without_a_terminal_there_are_plain_lines(drive: Path) -> None:
    with serving_in_thread(Script(well_behaved)) as address:
        done = run("stream", str(drive), "--server", address, "--policy", "replay", "--encoding", "nv12")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("engine: scripted 1")
    assert lines[-1].startswith("all: ")
    assert "ok=16 dropped=0" in lines[-1]
    assert "\x1b" not in done.stdout


def test_the_reason_of_frames_without_numbers_is_shown(drive: Path) -> None:
    async def refusing(script: Script, context: Context) -> None:
        await script.open(context)
        async for request, _, received in script.requests(context):
            await context.write(credit(request.frame.camera_id))
            await context.write(answer(request, received, received, status=STATUS_REFUSED, reason="[not] today"))

    with serving_in_thread(Script(refusing)) as address:
        done = run("stream", str(drive), "--server", address, "--policy", "replay")
    assert "refused=8" in done.stdout
    assert "left, newest refused: [not] today" in done.stdout


def test_interrupting_a_stream_sums_it_up(drive: Path) -> None:
    with serving_in_thread(script := Script(well_behaved)) as address:
        process = subprocess.Popen(
            [*COMMAND, "stream", str(drive), "--server", address, "--loop", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        while len(script.frames) < 4 and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the producer, too
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["cameras"]["all"]["statuses"]["ok"] >= 4


def test_watching_and_asking_for_the_engine(tmp_path: Path) -> None:
    from client import Camera

    script = Script(well_behaved)
    script.watch_again(Camera("front", 8, 8).to_proto(), 3)
    with serving_in_thread(script) as address:
        lines = run("watch", "--server", address, "--count", "2").stdout.splitlines()
        assert [line.split()[:4] for line in lines] == [["s1", "front", "0", "ok"]] * 2
        watched = [json.loads(line) for line in run("watch", "--server", address, "--json").stdout.splitlines()]
        assert [entry["camera"] for entry in watched] == ["front"] * 3
        assert "scripted 1" in run("engine", "--server", address).stdout
        assert json.loads(run("engine", "--server", address, "--json").stdout)["labels"] == ["car", "truck"]


@pytest.mark.parametrize("command", [["stream", "x"], ["watch"], ["engine"]])
def test_no_server_says_how_to_start_one(command: list[str]) -> None:
    done = run(*command, "--server", "127.0.0.1:1", code=2)
    assert done.stderr.startswith("error: nobody listens at 127.0.0.1:1")
    assert "python -m server BUNDLE" in done.stderr


def test_a_bad_source_says_what_is_wrong_with_it(drive: Path) -> None:
    (drive / "left" / "3.png").write_bytes(b"broken")
    with serving_in_thread(Script(well_behaved)) as address:
        assert "names no source" in run("stream", "nothing", "--server", address, code=2).stderr
        done = run("stream", str(drive), "--server", address, "--policy", "replay", code=2)
        assert "3.png (6 bytes) is not an image" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stream", "x", "--fps", "0"], "0 is not a rate"),
        (["stream", "x", "--quality", "101"], "101 is not between 1 and 100"),
        (["stream", "x", "--duration", "-1"], "-1 is not between 0 and 1e9"),
        (["stream", "x", "--encoding", "gif"], "invalid choice: 'gif'"),
        ([], "required: COMMAND"),
    ],
)
def test_a_bad_argument_is_explained(arguments: list[str], message: str) -> None:
    assert message in run(*arguments, code=2).stderr
