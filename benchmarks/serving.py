"""Servers for the length of a `with` block, each in a process of its own, and what the benchmarks print about aims."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
_SERVING = re.compile(r"serving .* at (\S+), metrics at (\S+)")


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        address: Where it takes frames.
        metrics: Where Prometheus reads; `none` where nobody does.
        pid: Its process.
    """

    address: str
    metrics: str
    pid: int


@contextlib.contextmanager
def python(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A Python process that logs `serving ... at ADDRESS, metrics at URL` once it is up.

    Args:
        arguments: Of the interpreter.
        environment: Variables besides ours.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := _SERVING.search(line):
                # Read on: a process that logs into a full pipe stands still.
                threading.Thread(target=_discard, args=(process.stdout,), name="log", daemon=True).start()
                yield Running(found[1], found[2], process.pid)
                break
        else:
            raise SystemExit(f"{' '.join(arguments)} did not start:\n{''.join(said)}")
    finally:
        process.terminate()
        process.wait()


def _discard(log: IO[str]) -> None:
    for _ in log:
        pass


def server(bundle: Path, *flags: str) -> contextlib.AbstractContextManager[Running]:
    """`python -m server` on free ports, warnings and errors only after it has started.

    Args:
        bundle: What to serve.
        flags: As on the command line.
    """
    return python("-m", "server", str(bundle), "--port", "0", "--metrics-port", "0", *flags)


def cpu_ns(pid: int) -> int:
    """CPU time of a process so far, all threads. proc(5): schedstat, nanoseconds on a core."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            total += int((thread / "schedstat").read_text().split()[0])
    return total


def verdict(what: str, found: float, aim: float, *, at_least: bool = False) -> str:
    """One line: reference and aim, met or missed.

    Args:
        what: What was compared with what.
        found: The ratio or figure.
        aim: Its bound.
        at_least: Whether it is a lower bound.
    """
    met = found >= aim if at_least else found <= aim
    return f"{what}: {found:.3f}, aim {'>=' if at_least else '<='} {aim:g}: {'met' if met else 'MISSED'}"


def machine() -> str:
    """The machine in a few words, for the head of a table."""
    one, five, _ = os.getloadavg()
    return f"{os.cpu_count()} cores, load {one:.1f} ({five:.1f} over 5 min)"
