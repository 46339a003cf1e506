"""Numbers as people read them."""

from __future__ import annotations


def size(size_bytes: float | None) -> str:
    """Bytes for a person, in powers of ten as memory reports give them."""
    if size_bytes is None:
        return "not said"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def count(value: float) -> str:
    """A large number for a person."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f}"
