"""A server that goes away while a command runs: what was measured until then is told, and then why it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import client
from tests.server.process import Process, server

__all__ = ["server"]
PATIENCE_SECONDS = 60


@pytest.fixture
def drive(tmp_path: Path) -> str:
    for number in range(2):
        (tmp_path / "drive").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "drive" / f"{number}.png"), np.full((16, 32, 3), 200, np.uint8))
    return str(tmp_path / "drive")


def killed(server: Process, *arguments: str, at_result_of: str) -> tuple[str, str]:
    """What a command says on both outputs whose server is killed once a camera has a result."""
    address = server.address()
    with client.connect_sync(address) as connection:
        watching = connection.watch([at_result_of])
        process = subprocess.Popen(
            [sys.executable, "-m", "client", *arguments, "--server", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        next(watching)
        server.process.kill()
        with pytest.raises(client.ConnectionLost, match="lost the server at"):
            for _ in watching:
                pass
    output, complaint = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert complaint.startswith(f"error: lost the server at {address}")
    assert complaint.count("→") == 1
    return output, complaint


def test_a_stream_sums_up_what_came(server: Process, drive: str) -> None:
    output, _ = killed(server, "stream", drive, "--loop", "--fps", "50", at_result_of="drive")
    assert output.splitlines()[-1].startswith("drive: ")


def test_a_stream_sums_up_what_came_for_programs(server: Process, drive: str) -> None:
    output, _ = killed(server, "stream", drive, "--loop", "--fps", "50", "--json", at_result_of="drive")
    assert json.loads(output)["cameras"]["drive"]["sent"] > 0


def test_a_bench_shows_and_writes_the_runs_that_ended(server: Process, tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    arguments = ("--cameras", "1,2", "--seconds", "1", "--warm-up", "0", "--json", str(figures))
    output, _ = killed(server, "bench", *arguments, at_result_of="bench_1")
    assert "1 x 30/s" in output
    assert len(json.loads(figures.read_text())["runs"]) == 1


def test_who_follows_the_state_learns_that_the_server_is_gone(server: Process) -> None:
    with client.connect_sync(server.address()) as connection:
        states = connection.watch_state()
        assert next(states).computes
        server.process.kill()
        with pytest.raises(client.ConnectionLost, match="is it still running"):
            for _ in states:
                pass
