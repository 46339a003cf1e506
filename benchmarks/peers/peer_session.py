"""The ONNX Runtime session that every server and the bare reference open.

Runs in the peers' environments: no imports of ours.
"""

from __future__ import annotations

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


def open_session(path: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A session of the model at `path`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
