"""What the peers and their client share: the ONNX Runtime session that all of them open, and waiting for a server.

Runs in the peers' environments: no imports of ours.
"""

from __future__ import annotations

import time
from typing import Any

import onnxruntime

OPTIONS = {
    "intra_op_num_threads": 1,
    "inter_op_num_threads": 1,
    "session.intra_op.allow_spinning": "0",
    "execution_mode": "sequential",
    "graph_optimization_level": "all",
    "providers": "CPUExecutionProvider",
}
"""As `engine.onnx_runtime` sets them with `--threads 1`."""
START_SECONDS = 120.0


def open_session(path: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A session of the model at `path`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def wait_for_model(client: Any, server: dict[str, str]) -> None:  # noqa: ANN401 - tritonclient has no types
    """Wait until a server serves its model.

    Args:
        client: Connected to it.
        server: Its name, address and model.

    Raises:
        SystemExit: It does not.
    """
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(client, server["model"]):
        if time.monotonic() > deadline:
            raise SystemExit(f"{server['name']} does not serve {server['model']} at {server['address']}")
        time.sleep(0.2)


def _is_ready(client: Any, model: str) -> bool:  # noqa: ANN401 - as above
    try:
        return bool(client.is_model_ready(model))
    except Exception:  # the client's own kind: nobody listens yet
        return False
