"""The one client of all servers, `tritonclient.grpc` unary, and the bare runtime beside it, in random order.

Run by `benchmarks.peers` with the interpreter of Triton's environment, which has both: reads a JSON description from
its argument, writes JSON to standard output. No imports of ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from peer_session import open_session, wait_for_model  # beside this file

WARM_UP = 20
SEED = 1
"""Of the order of the calls."""


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Measure.

    Args:
        task: `model`: path of the ONNX file; `servers`: name, address and model of each; `rounds`; `requests` of each
            server per round.

    Returns:
        Medians per round by server in milliseconds, `bare` among them, and all times.
    """
    image = np.random.default_rng(3).standard_normal((1, 3, 224, 224)).astype(np.float32)
    session = open_session(task["model"])
    (expected,) = session.run(["logits"], {"image": image})
    calls: dict[str, Callable[[], Any]] = {"bare": lambda: session.run(["logits"], {"image": image})}
    for server in task["servers"]:
        calls[server["name"]] = _caller(server, image, expected)
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    medians: dict[str, list[float]] = {name: [] for name in calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    names, shuffled = list(calls), np.random.default_rng(SEED)
    for _ in range(task["rounds"]):
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(task["requests"]):
            for name in shuffled.permutation(names):  # nobody always finds the caches that the same other left
                started = time.perf_counter_ns()
                calls[name]()
                found[name].append((time.perf_counter_ns() - started) / 1e6)
        for name, values in found.items():
            medians[name].append(statistics.median(values))
            times[name] += values
    return {"medians_ms": medians, "times_ms": times}


def _caller(server: dict[str, str], image: Any, expected: Any) -> Callable[[], Any]:  # noqa: ANN401 - arrays
    """A call of one server, once it is up and answers what the bare runtime does."""
    client = grpcclient.InferenceServerClient(server["address"])
    wait_for_model(client, server)

    def call() -> Any:  # noqa: ANN401
        given = grpcclient.InferInput("image", list(image.shape), "FP32")
        given.set_data_from_numpy(image)
        return client.infer(server["model"], [given], outputs=[grpcclient.InferRequestedOutput("logits")])

    answered = call().as_numpy("logits")
    if not np.allclose(answered, expected, atol=1e-3):
        raise SystemExit(f"{server['name']} answers other numbers than the bare runtime")
    return call


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
