"""What a plan depends on. A plan is opened only where all of it matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ANY = "any"
"""A plan's value for a fact that it does not depend on."""
NONE = "none"

PlanKey = dict[str, str]

ENVIRONMENT = (
    "runtime",
    "runtime_version",
    "compute_capability",
    "device_name",
    "sm_count",
    "memory_bytes",
    "dla_core",
)
"""The part of a key that comes from where a plan runs; the rest comes from what was compiled, and how."""


@dataclass(frozen=True)
class DeviceFacts:
    """What of a GPU decides which plans fit it.

    AGX Orin, Orin NX and Orin Nano share compute capability 8.7 and differ in SM count, so a plan fits a device
    model rather than an architecture.

    Attributes:
        name: The driver's name for it.
        compute_capability: For example `8.7`.
        sm_count: Streaming multiprocessors.
        memory_bytes: All of its memory; the whole system's where the GPU is integrated.
        integrated: Whether it shares the system's memory.
    """

    name: str
    compute_capability: str
    sm_count: int
    memory_bytes: int
    integrated: bool

    def environment(self, runtime: str, runtime_version: str) -> PlanKey:
        """The environment part of a key for plans compiled on this device."""
        return {
            "runtime": runtime,
            "runtime_version": runtime_version,
            "compute_capability": self.compute_capability,
            "device_name": self.name,
            "sm_count": str(self.sm_count),
            "memory_bytes": str(self.memory_bytes),
            "dla_core": NONE,
        }


def portable_environment(runtime: str, runtime_version: str, compute_capabilities: tuple[str, ...]) -> PlanKey:
    """The environment part of a key for plans that depend on no single device, as TensorRT-RTX's do.

    Args:
        runtime: `tensorrt-rtx`.
        runtime_version: Full library version.
        compute_capabilities: Those it was compiled for; empty means all that the library supports.
    """
    return {
        "runtime": runtime,
        "runtime_version": runtime_version,
        "compute_capability": ",".join(sorted(compute_capabilities)) or ANY,
        "device_name": ANY,
        "sm_count": ANY,
        "memory_bytes": ANY,
        "dla_core": NONE,
    }


def mismatches(plan: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Where a plan's key differs from what is wanted of it, each with both values.

    Args:
        plan: The key that was recorded with the plan.
        wanted: Facts that must match. A fact that the plan's key lacks is a mismatch.
    """
    return [
        f"{fact}: the plan has {plan.get(fact, 'no value')}, needed is {value}"
        for fact, value in wanted.items()
        if not _matches(fact, plan.get(fact), value)
    ]


def _matches(fact: str, recorded: str | None, wanted: str) -> bool:
    if recorded is None:
        return False
    if fact == "compute_capability" and wanted in recorded.split(","):
        return True
    return recorded in (ANY, wanted)
