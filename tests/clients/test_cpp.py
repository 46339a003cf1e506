"""The C++ client: compiled here, and run against the real server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.serving import Serving
from tests.server.bundles import write_bundle

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600
"""For the compiler on a busy machine; the second time, it has nothing to do."""


def build_log(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "warning:" not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def program() -> Path:
    needed = [name for name in ("cmake", "c++", "protoc", "grpc_cpp_plugin") if shutil.which(name) is None]
    if not Path("/usr/include/grpcpp/grpcpp.h").exists():
        needed.append("libgrpc++-dev")
    if needed:
        pytest.skip(f"the C++ client was left out: {', '.join(needed)} not installed; docker/system-packages.sh does")
    build_log("cmake", "-S", "clients/cpp", "-B", "out/cpp")
    build_log("cmake", "--build", "out/cpp", "-j", "2")
    return ROOT / "out/cpp/stream_frames"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("server")
    with Serving(write_bundle(folder / "bundle"), folder / "server.log") as server:
        yield server
    assert server.exit_code == 0


def run(program: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([program, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def count(output: str, name: str) -> int:
    found = re.search(rf"{name}:? (\d+)", output)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("way", [[], ["--shared-memory"]], ids=["bytes", "shared memory"])
def test_a_test_pattern_is_answered_and_every_ledger_adds_up(program: Path, serving: Serving, way: list[str]) -> None:
    output = run(program, "--server", serving.address, "--size", "64x32", "--frames", "20", *way)
    assert (count(output, "submitted"), count(output, "answered"), count(output, "STATUS_OK")) == (20, 20, 20), output
    assert "ledgers that do not add up: 0" in output
    assert "front 19 STATUS_OK age" in output


@pytest.mark.parametrize("way", [[], ["--shared-memory"]], ids=["bytes", "shared memory"])
def test_a_camera_that_is_too_fast_drops_in_the_client_and_all_is_accounted(
    program: Path, serving: Serving, way: list[str]
) -> None:
    output = run(
        program, "--server", serving.address, "--size", "1280x720", "--frames", "200", "--rate", "2000", "--quiet", *way
    )
    assert count(output, "submitted") == 200, output
    assert count(output, "client_dropped") + count(output, "sent") == 200
    answers = sum(count(output, f"STATUS_{name}") for name in ("OK", "STALE"))
    assert answers == count(output, "answered") == count(output, "sent")


def test_a_frame_of_several_pieces_arrives_whole(program: Path, serving: Serving) -> None:
    output = run(program, "--server", serving.address, "--size", "1280x720", "--frames", "5")
    assert (count(output, "sent"), count(output, "STATUS_OK")) == (5, 5), output


@pytest.mark.parametrize("way", [[], ["--shared-memory"]], ids=["bytes", "shared memory"])
def test_a_folder_of_pictures(program: Path, serving: Serving, tmp_path: Path, way: list[str]) -> None:
    for number in range(3):
        assert cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.full((40, 72, 3), (10, 10, 250), np.uint8))
    output = run(program, "--server", serving.address, "--folder", str(tmp_path), "--frames", "5", *way)
    assert count(output, "STATUS_OK") == 5, output
    assert "dark 0.9" in output  # the red channel's object


def test_what_goes_wrong_is_explained(program: Path, serving: Serving) -> None:
    assert "--max-frame 3000x3000" in run(program, "--server", serving.address, "--size", "3000x3000", code=1)
    assert "is `python -m server` running there?" in run(program, "--server", "127.0.0.1:1", code=1)
    assert "no such flag: --bogus" in run(program, "--bogus", code=1)
    assert "--shared-memory" in run(program, "--help")
