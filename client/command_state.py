"""`python -m client state`: what a server can do, now or whenever that changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from datetime import datetime, timezone

from rich.console import Console

from client.connection import connect
from client.state import EngineStatus, ServerState

COLORS = {"serving": "green", "ready": "green", "degraded": "yellow", "starting": "yellow", "loading": "yellow"}


async def state(
    address: str, console: Console, wait_seconds: float = 0.0, as_json: bool = False, follow: bool = False
) -> bool:
    """Show it, once or until the server ends; gives whether frames are computed, as it was told last.

    Raises:
        ClientError: The server cannot be reached, or went away.
    """
    computes = False
    async with (
        connect(address, wait_seconds=wait_seconds) as server,
        contextlib.aclosing(server.watch_state()) as states,
    ):
        async for told in states:
            computes = told.computes
            if as_json:
                console.print(json.dumps(dataclasses.asdict(told)), soft_wrap=True, highlight=False, markup=False)
            else:
                _show(told, console)
            if not follow:
                break
    return computes


def _show(told: ServerState, console: Console) -> None:
    console.print(
        f"{_time(told.since_utc_ns)}  {_colored(told.state)}{_because(told.reason)}", soft_wrap=True, highlight=False
    )
    for engine in told.engines:
        console.print(f"  {_engine(engine)}", soft_wrap=True, highlight=False)


def _engine(engine: EngineStatus) -> str:
    instances = f", {engine.instances_ready} of {engine.instances} instances" if engine.instances > 1 else ""
    restarts = f", {engine.restarts} restart{'s' * (engine.restarts > 1)}" if engine.restarts else ""
    return (
        f"{engine.name} {engine.version} {engine.digest[:12]}: {_colored(engine.state)} since "
        f"{_time(engine.since_utc_ns)}{instances}{restarts}{_because(engine.reason)}"
    )


def _colored(word: str) -> str:
    return f"[{COLORS.get(word, 'red')}]{word}[/]"


def _because(reason: str) -> str:
    return f": {reason}".replace("[", r"\[") if reason else ""


def _time(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
