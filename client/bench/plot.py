"""A picture of a bench: how latency is distributed, and when it was what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from client.bench.record import Record
from client.errors import ClientError

FORMATS = (".png", ".svg", ".pdf")


def check_can_plot(path: Path) -> None:
    """Say so before a run, not after it.

    Args:
        path: Where the picture is to go.

    Raises:
        ClientError: matplotlib is not installed, or the format is none of ours.
    """
    if path.suffix not in FORMATS:
        raise ClientError(f"--plot {path} names no format\n  → let it end in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401, PLC0415 - an optional extra
    except ImportError as error:
        raise ClientError(f"--plot needs matplotlib ({error})\n  → pip install 'monocoque[bench]'") from None


def write_plot(records: Sequence[Record], path: Path) -> None:
    """Write the picture; the suffix of the path says which format.

    Left, the share of *all* offered frames that were computed within a time: a curve that ends below 1 lost the rest.
    Right, latency by the time at which a frame was due; frames that were not computed are ticks along the top.

    Args:
        records: The runs.
        path: Where; `.png`, `.svg` or `.pdf`.
    """
    check_can_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(13, 5), layout="constrained")
    FigureCanvasAgg(figure)
    shares, times = figure.subplots(1, 2, width_ratios=(1, 1.4))
    for number, record in enumerate(records):
        color = f"C{number % 10}"
        computed = sorted(record.computed_ms())
        offered = max(1, len(record.due_ns))
        heights = [(rank + 1) / offered for rank in range(len(computed))]
        shares.step(computed, heights, where="post", color=color, label=record.name)
        points = list(zip(record.due_ns, record.offered_ms(), strict=True))
        start_ns = record.due_ns[0] if record.due_ns else 0
        kept = [((due - start_ns) / 1e9, latency) for due, latency in points if math.isfinite(latency)]
        lost = [(due - start_ns) / 1e9 for due, latency in points if math.isinf(latency)]
        times.plot(*zip(*kept, strict=True) if kept else ([], []), ".", markersize=2, color=color)
        times.plot(lost, [0.98] * len(lost), "|", color=color, transform=times.get_xaxis_transform())
    shares.set(
        xscale="log", ylim=(0, 1.02), xlabel="latency from when the frame was due, ms", ylabel="share of offered"
    )
    shares.axhline(0.99, color="0.7", linewidth=0.8, linestyle=":")
    shares.legend(fontsize=7, loc="lower right")
    times.set(yscale="log", xlabel="when the frame was due, s", ylabel="latency, ms")
    times.set_title("| along the top: not computed", fontsize=8, loc="right")
    for axes in (shares, times):
        axes.grid(alpha=0.3, which="both", linewidth=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
