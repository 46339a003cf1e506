"""A model of the KServe SDK, as its documentation builds one.

python kserve_server.py MODEL.onnx GRPC_PORT HTTP_PORT
"""

from __future__ import annotations

import sys
from typing import Any

import kserve
from peer_session import open_session  # beside this file


class OnnxModel(kserve.Model):  # type: ignore[misc] # kserve has no types
    """ONNX Runtime behind the SDK's `predict`."""

    def __init__(self, path: str) -> None:
        super().__init__("repvgg")
        self._session = open_session(path)
        self.ready = True

    def predict(self, request: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ANN401
        """Answer one request."""
        image = request.inputs[0].as_numpy()
        (logits,) = self._session.run(["logits"], {"image": image})
        output = kserve.InferOutput(name="logits", shape=list(logits.shape), datatype="FP32")
        output.set_data_from_numpy(logits)
        return kserve.InferResponse(
            response_id=request.id, model_name=self.name, infer_outputs=[output], use_binary_outputs=True
        )


if __name__ == "__main__":
    path, grpc_port, http_port = sys.argv[1:]
    kserve.ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), enable_grpc=True, workers=1).start(
        [OnnxModel(path)]
    )
