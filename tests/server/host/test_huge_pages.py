"""In a process of its own: what is put together stays so."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from server.host import huge_pages

ROOT = Path(__file__).resolve().parents[3]
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")

SCRIPT = """
import mmap, sys
from server.host.huge_pages import use_huge_pages

def held(name):
    lines = open('/proc/self/smaps_rollup').read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

memory = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, 64 << 20, int(sys.argv[1])):
    memory[page] = page >> 21 & 0xFF
memory.madvise(mmap.MADV_HUGEPAGE)
before = held('AnonHugePages'), held('Rss')
done = use_huge_pages()
same = all(memory[page] == page >> 21 & 0xFF for page in range(0, 64 << 20, int(sys.argv[1])))
print(done, held('AnonHugePages') - before[0], held('Rss') - before[1], same)
"""


def run(step_bytes: int) -> tuple[int, int, int]:
    """Bytes that were put into huge pages by its own account and by the kernel's, and by which memory grew."""
    command = [sys.executable, "-c", SCRIPT, str(step_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    own, kernels, growth, same = done.stdout.split()
    assert same == "True"
    return int(own), int(kernels), int(growth)


@pytest.mark.skipif(not SWITCH.exists() or "[never]" in SWITCH.read_text(), reason="this kernel has no huge pages")
def test_memory_in_use_lies_in_huge_pages_and_no_more_is_used() -> None:
    probe = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    probe.write(bytes(8 << 20))
    try:
        probe.madvise(huge_pages.MADV_COLLAPSE)
    except OSError as error:
        pytest.skip(f"this kernel puts memory together in its own time, or has no huge page left: {error.strerror}")
    own, kernels, growth = run(4096)
    assert kernels >= 56 << 20
    assert own >= kernels
    assert growth < 8 << 20


def test_memory_that_is_hardly_used_is_left_alone() -> None:
    _, kernels, growth = run(1 << 20)
    assert kernels < 32 << 20
    assert growth < 32 << 20


def test_a_kernel_without_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huge_pages, "SIZE_FILE", tmp_path / "hpage_pmd_size")
    assert huge_pages.use_huge_pages() == 0
