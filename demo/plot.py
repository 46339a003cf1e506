"""Draws where the time of a frame goes, and how it is spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from client.results import STAGES
from client.statistics import Statistics
from client.table import STAGE_COLORS

mpl.use("Agg")
from matplotlib import pyplot as plt

STYLE: Any = {  # the stubs list every key there is
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "figure.facecolor": "#0f131a",
    "axes.facecolor": "#161c25",
    "axes.edgecolor": "#3a4452",
    "axes.labelcolor": "#8e9aaa",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": "#e8edf3",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "text.color": "#e8edf3",
    "xtick.color": "#8e9aaa",
    "ytick.color": "#e8edf3",
    "grid.color": "#2a3340",
    "axes.axisbelow": True,
}


def plot_latency(statistics: Statistics, camera_ids: list[str], title: str, path: Path) -> None:
    """Write the plot.

    Args:
        statistics: Of the run.
        camera_ids: Which cameras, from the top down.
        title: What was run.
        path: PNG file to write.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(14, 9.2), dpi=120)
        grid = figure.add_gridspec(2, 2, height_ratios=(1, 0.66), hspace=0.6, wspace=0.08, top=0.88)
        stages = figure.add_subplot(grid[0, 0])
        spread = figure.add_subplot(grid[0, 1], sharey=stages)
        ages = figure.add_subplot(grid[1, :])
        figure.suptitle(title, x=0.125, ha="left", y=0.965, fontsize=15, fontweight="bold")
        _draw_stages(stages, statistics, camera_ids)
        _draw_spread(spread, statistics, camera_ids)
        _draw_ages(ages, statistics, camera_ids)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.35)
        plt.close(figure)


def _draw_stages(axes: Any, statistics: Statistics, camera_ids: list[str]) -> None:  # noqa: ANN401 - matplotlib is untyped
    """A bar per camera, a piece per stage: the stage's mean, so that the pieces add up to the mean latency."""
    axes.set_title("Where a frame's time goes: mean of each stage")
    seen = []
    for row, camera_id in enumerate(camera_ids):
        left = 0.0
        for stage, times in statistics.stage_times_ms(camera_id).items():
            mean = float(np.mean(times))
            axes.barh(row, mean, left=left, height=0.62, color=STAGE_COLORS[stage], edgecolor="#161c25", linewidth=0.6)
            left += mean
            seen.append(stage)
        axes.text(left, row, f"  {left:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(camera_ids)), [camera_id.replace("_", " ") for camera_id in camera_ids])
    axes.set_ylim(len(camera_ids) - 0.4, -0.6)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    axes.set_xlabel("milliseconds")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    handles = [mpl.patches.Patch(color=STAGE_COLORS[stage], label=stage) for stage in STAGES if stage in seen]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=5, frameon=False, fontsize=9,
        handlelength=1, columnspacing=1.4,
    )  # fmt: skip


def _draw_spread(axes: Any, statistics: Statistics, camera_ids: list[str]) -> None:  # noqa: ANN401
    """Every frame a dot, the half of them around the median a bar, the 99th percentile a mark."""
    axes.set_title("How it is spread: send to return of every frame")
    rng = np.random.default_rng(0)
    for row, camera_id in enumerate(camera_ids):
        times = np.array(statistics.end_to_end_ms(camera_id))
        if not len(times):
            continue
        axes.scatter(times, row + rng.uniform(-0.26, 0.26, len(times)), s=7, color="#56b4ff", alpha=0.45, linewidths=0)
        low, middle, high, tail = np.percentile(times, (25, 50, 75, 99))
        axes.plot((low, high), (row, row), color="#e8edf3", linewidth=5, alpha=0.9, solid_capstyle="round")
        axes.plot(middle, row, "o", color="#0f131a", markersize=4)
        axes.plot((tail, tail), (row - 0.3, row + 0.3), color="#ffb238", linewidth=2)
        axes.text(
            1.01, row, f"p50 {middle:.1f}\np99 {tail:.1f}", va="center", fontsize=8.5, color="#8e9aaa",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds")
    axes.grid(axis="x")
    axes.tick_params(axis="y", labelleft=False, length=0)
    marks = [
        mpl.lines.Line2D([], [], marker="o", color="#56b4ff", linestyle="", markersize=4, label="a frame"),
        mpl.lines.Line2D([], [], color="#e8edf3", linewidth=5, label="middle half"),
        mpl.lines.Line2D([], [], color="#ffb238", linewidth=2, label="99th percentile"),
    ]
    axes.legend(handles=marks, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, frameon=False, fontsize=9)


def _draw_ages(axes: Any, statistics: Statistics, camera_ids: list[str]) -> None:  # noqa: ANN401
    """The age of every result over the run: flat means that nothing piles up anywhere."""
    axes.set_title("Age of every result when it was back, capture to return: flat means that nothing piles up")
    colors = mpl.colormaps["cool"](np.linspace(0.05, 0.95, len(camera_ids)))
    for camera_id, color in zip(camera_ids, colors, strict=True):
        times, ages = statistics.ages_over_time(camera_id)
        axes.plot(times, ages, ".", markersize=4, alpha=0.7, color=color, label=camera_id.replace("_", " "))
    axes.set_xlabel("seconds")
    axes.set_ylabel("milliseconds")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(axis="y")
    axes.tick_params(axis="y", colors="#8e9aaa")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=len(camera_ids), frameon=False, fontsize=9, markerscale=2
    )
