"""Starting Triton, the KServe SDK and ours, each in a process of its own on a free port of the loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BARE_HANDLERS = {"aio": "bare handler, grpc.aio", "threads": "bare handler, threads"}
"""What they are called, by kind."""


@dataclass(frozen=True)
class Peer:
    """A server that runs.

    Attributes:
        name: Of the server.
        address: Where it takes `ModelInfer`.
        model: Name of the model there.
        pid: Its process.
    """

    name: str
    address: str
    model: str
    pid: int


def free_port() -> int:
    """A port of the loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def triton(python: Path, entry: Path, folder: Path, cores: str | None) -> Iterator[Peer]:
    """Triton with its Python backend.

    Args:
        python: Interpreter of its environment.
        entry: Its model, see `triton_models.py`; the folder around it is its model repository.
        folder: For its log.
        cores: Cores to pin it to, as taskset writes them; None: all.
    """
    site = _site_packages(python)
    home = site / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "backends" / "python" / "triton_python_backend_stub"  # where PyTriton puts it, too
    shutil.copy(home / "python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o755)
    (home / "bin" / "tritonserver").chmod(0o755)
    port = free_port()
    command = [
        str(home / "bin" / "tritonserver"), "--model-repository", str(entry.parent), "--backend-directory",
        str(home / "backends"), "--grpc-port", str(port), "--grpc-address", "127.0.0.1", "--allow-http", "false",
        "--allow-metrics", "false",
    ]  # fmt: skip
    libraries = [str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",  # models run in the Python that is found there
    }
    with _running(command, folder / "triton.log", cores, environment) as pid:
        yield Peer("Triton, Python backend", f"127.0.0.1:{port}", entry.name, pid)


@contextlib.contextmanager
def kserve(python: Path, model: Path, folder: Path, cores: str | None) -> Iterator[Peer]:
    """The KServe SDK's model server.

    Args:
        python: Interpreter of its environment.
        model: The ONNX file.
        folder: For its log.
        cores: As for `triton`.
    """
    port = free_port()
    command = [str(python), str(HERE / "kserve_server.py"), str(model.resolve()), str(port), str(free_port())]
    with _running(command, folder / "kserve.log", cores, {**os.environ, "PYTHONPATH": str(HERE)}) as pid:
        yield Peer("KServe SDK", f"127.0.0.1:{port}", "repvgg", pid)


@contextlib.contextmanager
def bare_handler(kind: str, model: Path, folder: Path, cores: str | None) -> Iterator[Peer]:
    """A gRPC handler in Python with the engine inside: see `bare_handler.py`.

    Args:
        kind: `aio` or `threads`.
        model: The ONNX file.
        folder: For its log.
        cores: As for `triton`.
    """
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.peers.bare_handler", str(model.resolve()), str(port), kind]
    with _running(command, folder / f"bare_handler_{kind}.log", cores, dict(os.environ)) as pid:
        yield Peer(BARE_HANDLERS[kind], f"127.0.0.1:{port}", "bare", pid)


@contextlib.contextmanager
def ours(bundle: Path, folder: Path, cores: str | None) -> Iterator[Peer]:
    """`python -m server`, its defaults but for one thread.

    Args:
        bundle: What to serve.
        folder: For its log.
        cores: As for `triton`.
    """
    port = free_port()
    command = [
        sys.executable, "-m", "server", str(bundle.resolve()), "--port", str(port), "--metrics-port", "0",
        "--threads", "1",
    ]  # fmt: skip
    with _running(command, folder / "ours.log", cores, dict(os.environ)) as pid:
        yield Peer("ours", f"127.0.0.1:{port}", bundle.name, pid)


@contextlib.contextmanager
def _running(command: list[str], log: Path, cores: str | None, environment: dict[str, str]) -> Iterator[int]:
    pinned = command if cores is None else ["taskset", "-c", cores, *command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            pinned, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _site_packages(python: Path) -> Path:
    (found,) = (python.parent.parent / "lib").glob("python3*/site-packages")
    return found.resolve()
