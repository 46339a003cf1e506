"""Whether another engine fits into memory beside the one that is served."""

from __future__ import annotations

import contextlib
from pathlib import Path

from engine.bundle import Bundle
from server.engines.served_engine import ServedEngine
from server.errors import SwapRefused

HEADROOM = 1.25
"""Of what the new engine is expected to take: loading takes more for a moment than running."""


def check_fit(old: ServedEngine, bundle: Bundle, instances: int) -> None:
    """Refuse an engine that would not fit beside the old one.

    It is expected to take what the old one holds, but for the weights, which are as large as its largest graph.

    Args:
        old: The engine that is served.
        bundle: The bundle that would take its place.
        instances: Engines that are opened.

    Raises:
        SwapRefused: It does not fit; the message has both sizes.
    """
    graphs = [bundle.manifest.files[graph.path].size_bytes for graph in bundle.manifest.graphs.values()]
    kinds = old.memory.bytes_by_kind
    rest = sum(kinds.get(kind, 0) for kind in ("activations", "input_output"))
    needed = round(HEADROOM * instances * (max(graphs, default=0) + rest))
    available = kinds["device_free"] if "device_free" in kinds else available_bytes()
    if available is not None and needed > available:
        raise SwapRefused(
            f"{bundle.path} is expected to need {needed >> 20} MiB beside the old engine, "
            f"{available >> 20} MiB are left",
            remedy="restart the server with the new bundle instead, or free memory",
        )


def available_bytes(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that can be had without swapping: the host's, or what the control group leaves of it; None if unknown.

    Args:
        proc: The kernel's account of the host (proc(5), `MemAvailable`).
        cgroup: Our control group (version 2), as a container sees it.
    """
    limits = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in proc.read_text().splitlines() if ":" in line)
        limits.append(int(lines["MemAvailable"].split()[0]) << 10)
    with contextlib.suppress(OSError, ValueError):  # no limit is the word `max`
        limits.append(int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text()))
    return max(0, min(limits)) if limits else None
