"""Records Triton's answers to `exchanges.py` in `triton.json`.

::

    python -m venv scratch && scratch/bin/pip install nvidia-pytriton
    python -m tests.server.open_inference.record_triton scratch
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc

from tests.server.open_inference.exchanges import EXCHANGES, play, shared_memory

RECORDING = Path(__file__).with_name("triton.json")
START_SECONDS = 60.0

MODELS = {
    "mixed": (
        """
max_batch_size: 4
input [ { name: "a" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "b" data_type: TYPE_INT64 dims: [ 2, 2 ] } ]
output [ { name: "sum" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "twice" data_type: TYPE_INT64 dims: [ 2, 2 ] } ]
""",
        '{"sum": inputs["a"] + 1, "twice": inputs["b"] * 2}',
    ),
    "flat": (
        """
max_batch_size: 0
input [
  { name: "x" data_type: TYPE_FP16 dims: [ 4 ] },
  { name: "flag" data_type: TYPE_BOOL dims: [ 2 ] },
  { name: "u8" data_type: TYPE_UINT8 dims: [ 2 ] }
]
output [
  { name: "y" data_type: TYPE_FP16 dims: [ 4 ] },
  { name: "not_flag" data_type: TYPE_BOOL dims: [ 2 ] },
  { name: "u16" data_type: TYPE_UINT16 dims: [ 2 ] }
]
""",
        '{"y": inputs["x"] + inputs["x"], "not_flag": ~inputs["flag"], "u16": inputs["u8"].astype("uint16") * 2}',
    ),
    "scores": (
        """
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 5 ] } ]
output [ { name: "probabilities" data_type: TYPE_FP32 dims: [ 5 ] } ]
""",
        '{"probabilities": inputs["x"]}',
    ),
}
CODE = """
import triton_python_backend_utils as backend

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer({{t.name(): t.as_numpy() for t in request.inputs()}}) for request in requests]

    def answer(self, inputs):
        outputs = {outputs}
        return backend.InferenceResponse([backend.Tensor(name, value) for name, value in outputs.items()])
"""


def write_models(repository: Path) -> None:
    """A Triton repository with the models of the exchanges, for its Python backend."""
    for name, (config, outputs) in MODELS.items():
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder.parent / "config.pbtxt").write_text(f'backend: "python"\n{config}')
        (folder / "model.py").write_text(CODE.format(outputs=outputs))


def start(environment: Path, scratch: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the Triton of a `nvidia-pytriton` wheel.

    Args:
        environment: The virtual environment where it is installed.
        scratch: An empty folder.
        port: For gRPC.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = environment / "lib" / f"python{version}" / "site-packages"
    triton = site_packages / "pytriton" / "tritonserver"
    backends = scratch / "backends"
    shutil.copytree(triton / "backends", backends)
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    write_models(scratch / "models")
    command = [
        triton / "bin" / "tritonserver",
        f"--model-repository={scratch / 'models'}",
        f"--backend-directory={backends}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in MODELS),
    ]
    libraries = [str(site_packages / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
    path = f"{environment / 'bin'}:{os.environ['PATH']}"  # its models run in the Python that is found there
    return subprocess.Popen(command, env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "PATH": path})


def main() -> None:
    """Start Triton, record, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="virtual environment where nvidia-pytriton is installed")
    environment = parser.parse_args().environment.resolve()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        server = start(environment, Path(scratch), port)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, shared_memory():
                grpc.channel_ready_future(channel).result(START_SECONDS)
                recorded = {exchange.name: play(channel, exchange) for exchange in EXCHANGES}
        finally:
            server.terminate()
            server.wait()
    RECORDING.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
