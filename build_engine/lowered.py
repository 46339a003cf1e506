"""How a build lowered a network's precision: what it decided, and what that was measured to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from build_engine.quantize import Choice, Core, Found, Tried


@dataclass(frozen=True)
class Lowered:
    """How a network was brought to lower precision.

    Attributes:
        core: Where lower precision is borne.
        choice: How it was quantized; None for FP16.
        tried: Every choice that was measured.
        found: What a budget left out; None without a budget.
        budget: That budget, in points.
        judge: Who judged, in words; None without a budget.
        measured: What the user's metric said about each graph during the search.
        errors: Relative error of every layer's output as it has built up to there, by graph and layer.
    """

    core: Core
    choice: Choice | None = None
    tried: tuple[Tried, ...] = ()
    found: Found | None = None
    budget: float | None = None
    judge: str | None = None
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
