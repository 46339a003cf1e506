"""What the kernel says about the processor."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
_ALIASES = {"asimddp": "neon_dotprod"}
"""Names that the kernel and ONNX Runtime give to the same instructions."""


def cpu_name() -> str:
    """The processor's model name; its architecture where the kernel tells none, as on many ARM boards."""
    return next(iter(_values("model name")), platform.machine())


def cpu_features() -> frozenset[str]:
    """Instruction sets by the kernel's names (`avx2`, `avx512_vnni`, `asimddp`) and their aliases."""
    words = {word for key in ("flags", "Features") for value in _values(key)[:1] for word in value.split()}
    return frozenset(words | {_ALIASES[word] for word in words & set(_ALIASES)})


def missing_features(wanted: Iterable[str], held: frozenset[str]) -> list[str]:
    """The features that a processor lacks.

    Args:
        wanted: Names, or alternatives of which one suffices: `avx_vnni|avx512_vnni`.
        held: What it has.
    """
    return [feature for feature in wanted if held.isdisjoint(feature.split("|"))]


def _values(key: str) -> list[str]:
    pairs = (line.partition(":") for line in _INFO.read_text().splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]
