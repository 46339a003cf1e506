"""The C++ client when its server dies or falls silent in the middle of a stream."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.clients.test_cpp import count, program
from tests.server.process import Process, server

__all__ = ["program", "server"]
PATIENCE_SECONDS = 90
"""A silent server is noticed after 20 s."""


@pytest.mark.parametrize(("how", "rate"), [("killed", "0"), ("killed", "200"), ("silent", "0")])
def test_what_was_measured_is_told_and_why_it_ended(program: Path, server: Process, how: str, rate: str) -> None:
    address = server.address()
    client = subprocess.Popen(
        [program, "--server", address, "--size", "64x32", "--frames", "10000000", "--rate", rate],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert any("STATUS_OK" in line for line in client.stdout)
        server.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        output, complaint = client.communicate(timeout=PATIENCE_SECONDS)
    finally:
        server.process.send_signal(signal.SIGCONT)
        client.kill()
    assert client.returncode == 1
    assert count(output, "front: submitted") > 0
    assert count(output, "STATUS_OK") > 0
    assert complaint.count("ended the stream") == 1, complaint
    assert complaint.startswith(f"stream_frames: the server at {address} ended the stream")
    assert "is `python -m server` running there?" in complaint
