"""A server in a process of its own, for tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.server.bundles import write_bundle

START_SECONDS = 60.0
"""Only a hang takes this long."""
ROOT = Path(__file__).parents[2]


class Process:
    """A server in a process of its own.

    Args:
        arguments: Of `python -m server`.
        program: What is run instead.
    """

    def __init__(self, *arguments: str, program: Sequence[str] = ("-m", "server")) -> None:
        command = [sys.executable, "-W", "error", *program, *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = ""

    def address(self) -> str:
        """Wait until it serves."""
        return self.until(r"serving .* at (\S+), metrics at")[1]

    def until(self, words: str) -> re.Match[str]:
        """Wait until it says something."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if found := re.search(words, line):
                return found
        raise AssertionError(f"it never said {words!r}: {self.said}")

    def end(self) -> tuple[int, str]:
        """Wait for its end; returns the exit code and all it said."""
        out, err = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, self.said + err + out

    def kill(self) -> None:
        """End it, if it has not ended yet."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """One of a small bundle, on free ports."""
    bundle = write_bundle(tmp_path / "bundle")
    running = Process(str(bundle), "--port", "0", "--metrics-port", "0", "--threads", "1")
    yield running
    running.kill()
