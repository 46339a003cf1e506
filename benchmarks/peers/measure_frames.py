"""A frame by system shared memory to each server in turn, with `tritonclient.grpc`.

Run by `benchmarks.peers.frames` with the interpreter of Triton's environment: reads a JSON description from its
argument, writes JSON to standard output. No imports of ours.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from peer_session import wait_for_model  # beside this file
from tritonclient.utils import shared_memory as shm

WARM_UP = 20


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Measure.

    Args:
        task: `servers`: name, address and model of each; `width` and `height` of the frame; `rounds`; `frames` for each
            server per round.

    Returns:
        Medians per round in milliseconds by server: `copied` with the client's copy into its region, `handle` without.
    """
    frame = np.random.default_rng(0).integers(0, 256, (task["height"], task["width"], 3), np.uint8)
    medians: dict[str, dict[str, list[float]]] = {"copied": {}, "handle": {}}
    with contextlib.ExitStack() as stack:
        calls = {server["name"]: stack.enter_context(_region(server, frame)) for server in task["servers"]}
        for call in calls.values():
            for _ in range(WARM_UP):
                call(True)
        for number in range(task["rounds"]):
            found: dict[tuple[str, str], list[float]] = {(way, name): [] for way in medians for name in calls}
            names = list(calls)
            for turn in range(task["frames"]):
                shift = (number + turn) % len(names)  # nobody is always the first after another
                for way in medians:
                    for name in names[shift:] + names[:shift]:
                        started = time.perf_counter_ns()
                        calls[name](way == "copied")
                        found[way, name].append((time.perf_counter_ns() - started) / 1e6)
            for (way, name), times in found.items():
                medians[way].setdefault(name, []).append(statistics.median(times))
    return medians


@contextlib.contextmanager
def _region(server: dict[str, str], frame: Any) -> Any:  # noqa: ANN401 - arrays
    """A region registered with one server, and a call that answers with the frame's first pixels."""
    client = grpcclient.InferenceServerClient(server["address"])
    wait_for_model(client, server)
    name = f"frame_{server['model']}"
    region = shm.create_shared_memory_region(name, f"/monocoque_{name}", frame.nbytes)
    try:
        client.register_system_shared_memory(name, f"/monocoque_{name}", frame.nbytes)
        given = grpcclient.InferInput("frame", list(frame.shape), "UINT8")
        given.set_shared_memory(name, frame.nbytes)
        wanted = [grpcclient.InferRequestedOutput("corner")]

        def call(copies: bool) -> Any:  # noqa: ANN401
            if copies:
                shm.set_shared_memory_region(region, [frame])
            return client.infer(server["model"], [given], outputs=wanted)

        if not np.array_equal(call(True).as_numpy("corner"), frame[:1, :8]):
            raise SystemExit(f"{server['name']} answers other pixels than it was sent")
        ready: Callable[[bool], Any] = call
        yield ready
        client.unregister_system_shared_memory(name)
    finally:
        shm.destroy_shared_memory_region(region)


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
