"""`model.py` of Triton's Python backend: ONNX Runtime on the request's own array."""

from __future__ import annotations

import json
from typing import Any

import triton_python_backend_utils as triton  # Triton puts it on the path
from peer_session import open_session  # beside this file


class TritonPythonModel:
    """What the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; its path is a parameter of the model's configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._session = open_session(parameters["model_path"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        responses = []
        for request in requests:
            image = triton.get_input_tensor_by_name(request, "image").as_numpy()
            (logits,) = self._session.run(["logits"], {"image": image})
            responses.append(triton.InferenceResponse([triton.Tensor("logits", logits)]))
        return responses
