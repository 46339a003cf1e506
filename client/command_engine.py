"""`python -m client engine`: which engine a server serves."""

from __future__ import annotations

import dataclasses
import json

from rich.console import Console
from rich.table import Table

from client.connection import connect
from client.engine import TensorSpec


async def engine(address: str, console: Console, wait_seconds: float = 0.0, as_json: bool = False) -> None:
    """Show it.

    Raises:
        ClientError: The server cannot be reached.
    """
    async with connect(address, wait_seconds=wait_seconds) as server:
        served = await server.engine()
    if as_json:
        console.print_json(json.dumps(dataclasses.asdict(served)))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    table.add_row("engine", f"{served.name} {served.version}")
    table.add_row("digest", served.digest)
    table.add_row("runs on", f"{served.backend} {served.backend_version}, {served.device or served.target}")
    table.add_row(
        "target", f"{served.target}, {served.precision}, graph {served.graph}, batch up to {served.max_batch}"
    )
    if served.degraded:
        table.add_row("degraded", f"[red]{served.degraded}[/red]")
    table.add_row("labels", ", ".join(served.labels) or "none")
    for name, tensors in (("inputs", served.inputs), ("outputs", served.outputs)):
        table.add_row(name, "\n".join(_tensor(item) for item in tensors))
    memory = (f"{kind} {size / 2**20:.1f} MiB" for kind, size in served.memory_bytes.items())
    table.add_row("memory", ", ".join(memory) or "not known")
    console.print(table, highlight=False)


def _tensor(item: TensorSpec) -> str:
    shape = " x ".join("any" if size < 0 else str(size) for size in item.shape)
    return f"{item.name}: {item.dtype} {shape}"
