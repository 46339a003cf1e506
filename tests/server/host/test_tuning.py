"""What the kernel is asked for, by the flags, in a process of its own."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from server.errors import StartFailed
from server.host import tuning
from server.host.tuning import CPU_LATENCY_DEVICE, WakeLatency, parse_cpus, pin
from tests.server.conftest import serving


def test_cores_are_written_as_taskset_writes_them() -> None:
    assert parse_cpus("0,2-4") == {0, 2, 3, 4}
    for wrong in ("", "a", "1-", "3-1", "-1"):
        with pytest.raises(ValueError, match="write core numbers"):
            parse_cpus(wrong)


def test_a_core_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(StartFailed, match="cannot run on cores 4095") as caught:
        pin(frozenset({4095}))
    assert str(min(os.sched_getaffinity(0))) in caught.value.remedy


@pytest.mark.parametrize(
    ("call", "check"),
    [
        ("lock_memory()", "int(line_of('VmLck').split()[1]) > 0"),
        ("run_first(1)", "os.sched_getscheduler(0) == os.SCHED_FIFO"),
        ("pin(frozenset({min(os.sched_getaffinity(0))}))", "len(os.sched_getaffinity(0)) == 1"),
    ],
)
def test_the_kernel_does_it_or_the_error_says_how_to_permit_it(call: str, check: str) -> None:
    script = f"""
import os, sys
from server.errors import StartFailed
from server.host.tuning import lock_memory, pin, run_first
def line_of(name):
    return next(line for line in open('/proc/self/status') if line.startswith(name))
try:
    {call}
except StartFailed as error:
    print(error.remedy)
else:
    print('done' if {check} else 'nothing happened')
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "done" or "leave --" in done.stdout


@pytest.mark.parametrize("settings", [{"engine_process": True}, {"spin": True, "threads": 2}, {"overlap": "off"}])
async def test_frames_are_served_with_the_flag(bundle_path: Path, settings: dict[str, object]) -> None:
    async with serving(bundle_path, **settings) as running:
        await running.still_serves()


async def test_idle_cores_stay_awake_while_streams_are_open(bundle_path: Path) -> None:
    device = Path(CPU_LATENCY_DEVICE)
    if not os.access(device, os.R_OK | os.W_OK):
        pytest.skip(f"{device} is for root")

    def bound_us() -> int:
        found: int = struct.unpack("i", device.read_bytes()[:4])[0]
        return found

    before = bound_us()
    async with serving(bundle_path, wake_latency_us=7) as running:
        assert bound_us() == before
        stream = await running.open_one("front")
        assert bound_us() == min(before, 7)
        await stream.finish()
        await running.until(lambda: not running.server.core.sessions)
        assert bound_us() == before


def test_a_machine_whose_power_management_takes_no_requests_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "CPU_LATENCY_DEVICE", "/dev/no_such_device")
    with pytest.raises(StartFailed, match=r"cannot bound the time in which cores wake up: .*No such file") as caught:
        WakeLatency(0)
    assert "without --wake-latency-us" in caught.value.remedy
