"""One sentence that says what a build achieved."""

from __future__ import annotations

from build_engine.outcome import Built


def headline(built: Built) -> str:
    return f"{len(built.fusion.regions)} regions fused"
