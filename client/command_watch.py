"""`python -m client watch`: the newest results of everybody's streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from client.connection import Watched, connect
from client.table import number


async def watch(
    address: str, camera_ids: Sequence[str], console: Console, as_json: bool = False, count: int | None = None
) -> None:
    """Show results until interrupted, or until `count` have come.

    Raises:
        ClientError: The server cannot be reached, or went away.
    """
    latest: dict[tuple[str, str], Watched] = {}
    missed: Counter[tuple[str, str]] = Counter()
    seen = 0
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal and not as_json:
            live = stack.enter_context(Live(console=console, refresh_per_second=5))
        async with connect(address) as server, contextlib.aclosing(server.watch(camera_ids)) as watching:
            async for watched in watching:
                key = (watched.stream_id, watched.camera.id)
                latest[key] = watched
                missed[key] += watched.missed
                seen += 1
                if as_json:
                    console.print(json.dumps(_describe(watched)), soft_wrap=True, highlight=False, markup=False)
                elif live is not None:
                    live.update(_table(address, latest, missed))
                else:
                    console.print(_line(watched), soft_wrap=True, highlight=False, markup=False)
                if seen == count:
                    return
                await asyncio.sleep(0)


def _table(address: str, latest: dict[tuple[str, str], Watched], missed: Counter[tuple[str, str]]) -> Table:
    table = Table(title=f"results of {address}", title_justify="left", title_style="bold")
    for name in ("stream", "camera", "status", "objects"):
        table.add_column(name)
    for name in ("frame", "total ms", "age ms", "missed"):
        table.add_column(name, justify="right")
    for key, watched in sorted(latest.items()):
        result = watched.result
        table.add_row(
            watched.stream_id,
            watched.camera.id,
            result.status,
            _objects(watched),
            str(result.sequence),
            number(result.ledger.total_ns / 1e6),
            ("≥ " if result.age.lower_bound else "") + number(result.age.answered_ns / 1e6),
            str(missed[key]),
        )
    return table


def _line(watched: Watched) -> str:
    result = watched.result
    bound = ">=" if result.age.lower_bound else ""
    return (
        f"{watched.stream_id} {watched.camera.id} {result.sequence} {result.status} "
        f"total={number(result.ledger.total_ns / 1e6)}ms age={bound}{number(result.age.answered_ns / 1e6)}ms "
        f"missed={watched.missed} {_objects(watched)}"
    )


def _objects(watched: Watched) -> str:
    result = watched.result
    if result.status != "ok":
        return result.reason
    counted = Counter(detection.label for detection in result.detections)
    return ", ".join(f"{count} {label}" for label, count in counted.items())


def _describe(watched: Watched) -> dict[str, object]:
    result = watched.result
    return {
        "stream": watched.stream_id,
        "camera": watched.camera.id,
        "sequence": result.sequence,
        "capture_time_ns": result.capture_time_ns,
        "status": result.status,
        "reason": result.reason,
        "valid": result.valid,
        "degraded": result.degraded,
        "detections": [vars(detection) for detection in result.detections],
        "stages_ns": result.ledger.stages(),
        "age_ns": result.age.answered_ns,
        "missed": watched.missed,
    }
