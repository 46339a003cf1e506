"""What the kernel says about the processor."""

from __future__ import annotations

import platform
from pathlib import Path

_INFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor's model name; its architecture where the kernel tells none, as on many ARM boards."""
    return next(iter(_values("model name")), platform.machine())


def cpu_features() -> frozenset[str]:
    """Instruction sets by the kernel's names: `avx2`, `avx512_vnni`, `asimddp`."""
    return frozenset(word for key in ("flags", "Features") for value in _values(key)[:1] for word in value.split())


def _values(key: str) -> list[str]:
    pairs = (line.partition(":") for line in _INFO.read_text().splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]
