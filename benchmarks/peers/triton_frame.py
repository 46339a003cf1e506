"""`model.py` of Triton's Python backend: takes a frame and answers with its first pixels, so that moving it is all."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # Triton puts it on the path


class TritonPythonModel:
    """What the backend looks for."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        responses = []
        for request in requests:
            frame = triton.get_input_tensor_by_name(request, "frame").as_numpy()
            corner = np.ascontiguousarray(frame[:1, :8])
            responses.append(triton.InferenceResponse([triton.Tensor("corner", corner)]))
        return responses
