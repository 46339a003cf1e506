"""Engines' processes that tests kill."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from server.engines.instances import Instances
from server.engines.opening import OpenEngine
from server.engines.thread import EngineThread
from tests.server.conftest import Running
from tests.server.observe.test_metrics import samples


class Gate:
    """Engines are opened while it is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = asyncio.Event()
        opening = Instances._open_one

        async def when_open(instances: Instances) -> tuple[EngineThread, OpenEngine]:
            await self._open.wait()
            return await opening(instances)

        monkeypatch.setattr(Instances, "_open_one", when_open)
        self.open = self._open.set
        self.close = self._open.clear


def workers(parent: int | None = None) -> list[int]:
    """The engines' processes of this process, or of another one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if int(ppid) == (parent or os.getpid()) and state != "Z" and b"engine.worker" in command:
            found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def only_worker() -> int:
    (pid,) = workers()
    return pid


async def restarted(running: Running, before: int) -> int:
    """Wait until the engine is ready in another process; gives that."""
    lane = running.server.catalogue.find()
    await running.until(lambda: lane.instances[0] == 1 and workers() not in ([], [before]))
    return only_worker()


async def restarts(running: Running) -> float:
    return samples(await running.metrics(), "monocoque_engine_restarts_total")[("quarters",)]
