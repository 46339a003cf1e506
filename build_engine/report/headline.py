"""One sentence that says what a build achieved, and nothing that was not measured."""

from __future__ import annotations

from collections.abc import Mapping

from build_engine.accuracy import Accuracy
from build_engine.outcome import FLOAT, UNFUSED, Built
from build_engine.quantize.judge import points_lost
from build_engine.report.stayed_out import TELLING

SMALL = 0.1
"""Less is told as less than this, not as nothing."""


def headline(built: Built) -> str:
    """The sentence, for the terminal and the top of the report."""
    parts = [_fused(built), _memory(built), _speed(built), *_accuracy(built)]
    return ", ".join(part for part in parts if part) + "."


def activation_saving(built: Built) -> tuple[float, str]:
    """Share of activation memory that fusion saves, by the best account there is, and whose account it is."""
    compiled = {c.graph: c.plan.activation_bytes for c in built.compiled}
    before, after = compiled.get(UNFUSED), compiled.get(FLOAT)
    if before and after:
        return 1 - after / before, "TensorRT's account"
    before, after = built.fusion.before.activation_bytes, built.fusion.after.activation_bytes
    return (1 - after / before if before else 0.0), "peak of live tensors"


def speedups(built: Built) -> dict[str, float]:
    """How many times faster than the unfused graph each measured graph is, one frame at a time."""
    single = {latency.graph: latency.median_ms for latency in built.latency if latency.batch == 1}
    return {name: single[UNFUSED] / time for name, time in single.items() if name != UNFUSED and time > 0}


def _fused(built: Built) -> str:
    merged = sum(region.before.nodes > 1 and region.before.convolutions > 0 for region in built.fusion.regions)
    if not merged:
        return "Nothing to fuse: the network is plain already"
    return f"{merged} block{'s' if merged != 1 else ''} fused"


def _memory(built: Built) -> str:
    share, _ = activation_saving(built)
    percent = round(100 * share)
    return f"{percent} % less activation memory" if percent > 0 else ""


def _speed(built: Built) -> str:
    told = [
        f"{ratio:.1f}x faster in {'FP32' if name == FLOAT else 'INT8'}"
        for name, ratio in speedups(built).items()
        if ratio >= TELLING
    ]
    return " and ".join(told) + " on this CPU" if told else ""


def _accuracy(built: Built) -> list[str]:
    """Per precision, what the worst graph of it does: one recipe has a graph per kind of runtime."""
    reference = built.accuracy[0]
    told = []
    for precision in dict.fromkeys(accuracy.precision for accuracy in built.accuracy[1:]):
        graphs = [accuracy for accuracy in built.accuracy[1:] if accuracy.precision == precision]
        told.append(_versus_float(reference, graphs))
    return told


def _versus_float(reference: Accuracy, graphs: list[Accuracy]) -> str:
    precision = graphs[0].precision.upper()
    lost = [
        (points_lost(name, base, accuracy.metric[name]), name)
        for accuracy in graphs
        for name, base in reference.metric.items()
        if name in accuracy.metric
    ]
    if lost:
        return f"{precision} {_loss(*max(lost), reference.metric, several=len(lost) > 1)}"
    found = [accuracy.detections_f1 for accuracy in graphs if accuracy.detections_f1 is not None]
    if found:
        return f"{precision} detections match FP32's at F1 {min(found):.3f}"
    worst = min((output.agreement for accuracy in graphs for output in accuracy.outputs), default=1.0)
    return f"{precision} outputs agree with FP32's to {100 * worst:.1f} %"


def _loss(points: float, name: str, reference: Mapping[str, float], *, several: bool) -> str:
    """What is lost by the figure that loses most; one that improves loses nothing."""
    if points <= 0:
        return f"loses nothing in {'any figure' if several else name}"
    unit = "points" if 0 <= reference[name] <= 1 else "%"
    amount = f"{points:.1f} {unit}" if points >= SMALL else f"less than {SMALL} {unit}"
    return f"loses {'at most ' if several and points >= SMALL else ''}{amount} in {name}"
