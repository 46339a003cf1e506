"""What waits for the frames: where the kernel puts it, and what comes back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.bundle import Bundle
from engine.opening import open_runtime
from engine.runtime import Batch, RunReport, Runtime
from engine.slots import RegionTable
from server.host.background import NICER_BY, NICEST, in_background
from tests.server.conftest import serving
from tests.server.raw_client import PATIENCE_SECONDS, camera, frame


def niceness() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_it_comes_back_to_the_event_loop_with_its_result() -> None:
    assert await asyncio.wrap_future(in_background(divmod, 7, 2)) == (3, 1)


def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        in_background(divmod, 7, 0).result()


def test_its_thread_is_served_last_and_the_one_that_waits_is_not() -> None:
    before = niceness()
    assert in_background(niceness).result() == min(NICEST, before + NICER_BY)
    assert niceness() == before
    assert in_background(lambda: in_background(niceness).result()).result() == min(NICEST, before + 2 * NICER_BY)


def test_where_the_kernel_refuses_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert in_background(divmod, 7, 2).result(PATIENCE_SECONDS) == (3, 1)


def test_of_a_real_time_thread_it_is_an_ordinary_one() -> None:
    script = """
import os
from server.errors import StartFailed
from server.host.background import in_background
from server.host.tuning import run_first
try:
    run_first(1)
except StartFailed:
    raise SystemExit(3)
assert in_background(os.sched_getscheduler, 0).result() == os.SCHED_OTHER
assert os.sched_getscheduler(0) == os.SCHED_FIFO
"""
    root = Path(__file__).parents[3]
    code = subprocess.run([sys.executable, "-c", script], cwd=root, check=False, timeout=60).returncode
    if code == 3:
        pytest.skip("the real-time class is not permitted here")
    assert code == 0


async def test_an_engine_is_tried_out_behind_the_frames_and_computes_them_in_front(bundle_path: Path) -> None:
    ran: list[int] = []

    class Watched:
        """An engine that notes how its thread is served."""

        def __init__(self, runtime: Runtime) -> None:
            self._runtime = runtime
            self.describe, self.memory, self.close = runtime.describe, runtime.memory, runtime.close

        def run(self, batch: Batch) -> RunReport:
            ran.append(niceness())
            return self._runtime.run(batch)

    def opened(bundle: Bundle, regions: RegionTable) -> Runtime:
        return Watched(open_runtime(bundle, "cpu", regions, threads=1))

    async with serving(bundle_path, opened) as running:
        tried_out = len(ran)
        assert set(ran) == {min(NICEST, niceness() + NICER_BY)}
        stream = running.stream()
        await stream.open([camera()])
        await stream.send(frame(1))
        await stream.results(1)
    assert set(ran[tried_out:]) == {niceness()}
