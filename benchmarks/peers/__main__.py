"""Triton, the KServe SDK and ours side by side: one request at a time, against the bare runtime.

    python -m benchmarks.peers                       9 rounds, without and with affinity: about 2 minutes once installed
    python -m benchmarks.peers --without kserve      leave a peer out
    python -m benchmarks.peers --json out/peers.json

Same INT8 RepVGG-A0-shaped ONNX model, FP32 input 1x3x224x224, same client (tritonclient.grpc, unary), one intra-op
thread everywhere. Servers and bare runtime are called in random order; each ratio is of two medians of one round. The
peers are installed into environments of their own the first time (about 1 GB). Two bare handlers, which run the engine
and do nothing else, show what gRPC itself takes in Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import reference_model
from benchmarks.peers import servers
from benchmarks.peers.environments import REQUIREMENTS, python_of
from benchmarks.peers.peer_session import OPTIONS
from benchmarks.peers.triton_models import runtime_entry

AIM, STRETCH, LEAD = 1.28, 1.20, 0.1
"""Ours against the bare runtime, and how far ahead of every peer."""
CLIENT_CORE, SERVER_CORE = "0", "1"


def run_once(pythons: dict[str, Path], own: bool, pinned: bool, rounds: int, requests: int) -> dict[str, Any]:
    """All servers at once, one client.

    Args:
        pythons: Interpreters of the peers' environments.
        own: Whether ours takes part.
        pinned: Whether client and servers get a core each.
        rounds: Rounds.
        requests: Requests of each server per round.
    """
    bundle = reference_model.tensor_bundle()
    graph = reference_model.graph_of(bundle)
    cores = SERVER_CORE if pinned else None
    folder = reference_model.CACHE / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(servers.ours(bundle, folder, cores))] if own else []
        running += [
            stack.enter_context(servers.bare_handler(kind, graph, folder, cores)) for kind in servers.BARE_HANDLERS
        ]
        if "triton" in pythons:
            entry = runtime_entry(folder.resolve() / "repository", graph)
            running.append(stack.enter_context(servers.triton(pythons["triton"], entry, folder, cores)))
        if "kserve" in pythons:
            running.append(stack.enter_context(servers.kserve(pythons["kserve"], graph, folder, cores)))
        task = {
            "model": str(graph.resolve()),
            "servers": [{"name": one.name, "address": one.address, "model": one.model} for one in running],
            "rounds": rounds,
            "requests": requests,
        }
        command = [str(pythons["client"]), str(servers.HERE / "measure.py"), json.dumps(task)]
        done = subprocess.run(
            ["taskset", "-c", CLIENT_CORE, *command] if pinned else command,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"the client failed; the servers' logs are in {folder}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ratios(found: dict[str, Any]) -> dict[str, list[float]]:
    """Median of each round over the bare runtime's median of the same round."""
    bare = found["medians_ms"]["bare"]
    return {
        name: [one / other for one, other in zip(values, bare, strict=True)]
        for name, values in found["medians_ms"].items()
    }


def table(title: str, found: dict[str, Any]) -> Table:
    """One row per server."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("server")
    for name in ("p50 ms", "p99 ms", "x bare, median of rounds", "least", "most"):
        shown.add_column(name, justify="right")
    for name, values in ratios(found).items():
        times = found["times_ms"][name]
        shown.add_row(
            name,
            f"{statistics.median(times):.2f}",
            f"{np.percentile(times, 99):.2f}",
            f"{statistics.median(values):.3f}",
            f"{min(values):.3f}",
            f"{max(values):.3f}",
        )
    return shown


def verdict(found: dict[str, Any]) -> str:
    """Whether the aims are met."""
    middle = {name: statistics.median(values) for name, values in ratios(found).items()}
    middle.pop("bare")
    if "ours" not in middle:
        return "ours was left out"
    own = middle.pop("ours")
    least = min(middle.pop(name) for name in servers.BARE_HANDLERS.values())
    lines = [f"ours {own:.3f} x bare, aim <= {AIM} (stretch {STRETCH}): {_met(own <= AIM)}"]
    lines.append(f"the better bare handler {least:.3f}: what gRPC in Python takes, whatever the server does")
    for name, ratio in middle.items():
        lines.append(
            f"{name} {ratio:.3f}, ours ahead by {ratio - own:+.3f}, aim >= {LEAD}: {_met(ratio - own >= LEAD)}"
        )
    return "\n".join(lines)


def _met(reached: bool) -> str:
    return "met" if reached else "MISSED"


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (%(default)s)")
    parser.add_argument("--requests", type=int, default=60, help="of each server per round (%(default)s)")
    parser.add_argument("--without", action="append", default=[], choices=("ours", *REQUIREMENTS), help="leave one out")
    parser.add_argument("--affinity", choices=("both", "off", "on"), default="both", help="(%(default)s)")
    parser.add_argument(
        "--environments", type=Path, default=reference_model.CACHE / "environments", help="folder (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    console = Console()
    pythons = {name: python_of(name, arguments.environments) for name in REQUIREMENTS}
    usable = {name: python for name, python in pythons.items() if python and name not in arguments.without}
    client = pythons["triton"]
    if client is None:
        print("the client, tritonclient.grpc, could not be installed", file=sys.stderr)
        return 2
    console.print("session options, everywhere:", ", ".join(f"{name}={value}" for name, value in OPTIONS.items()))
    document: dict[str, Any] = {"session_options": OPTIONS, "cores": os.cpu_count(), "runs": {}}
    for pinned in (False, True):
        if arguments.affinity == ("off" if pinned else "on"):
            continue
        found = run_once(
            {**usable, "client": client}, "ours" not in arguments.without, pinned, arguments.rounds, arguments.requests
        )
        title = f"client on core {CLIENT_CORE}, servers on core {SERVER_CORE}" if pinned else "no affinity"
        console.print(table(f"{title}, {arguments.rounds} rounds of {arguments.requests}", found))
        console.print(verdict(found), highlight=False)
        document["runs"][title] = {"medians_ms": found["medians_ms"], "ratios": ratios(found)}
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
