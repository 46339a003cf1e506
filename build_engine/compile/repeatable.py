"""A TensorRT-RTX plan with the same bytes each time: compiled in a process that finds the same memory each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from engine.errors import BuildFailed, unpack_error
from engine.tensorrt.plan import CompiledLayer, CompiledPlan, PlanOptions

_PASSED_ON = ("LD_LIBRARY_PATH", "PYTHONHOME")
"""Where libraries are found. Nothing else of the environment reaches the compiler."""
_FIXED = {
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
"""No threads but ours, and none that keeps what it frees of another's heap for itself: when it does is a matter of
timing, and the compiler's next object would lie there."""
_LAST_WORDS = 400


def build_repeatably(onnx_graph: bytes, options: PlanOptions) -> tuple[CompiledPlan, bool]:
    """Compile a graph for TensorRT-RTX.

    `engine.tensorrt.plan.build_plan` in this process would give other bytes each time where several batch sizes are
    left. The process that compiles is exec'd, with an environment of its own.

    Args:
        onnx_graph: Bytes of the ONNX file.
        options: How to compile; a timing cache is ignored.

    Returns:
        The plan, and whether the next build's will have the same bytes: not where the system lets no process choose
        its addresses.

    Raises:
        RuntimeUnavailable: TensorRT-RTX is not installed.
        BuildFailed: TensorRT-RTX refuses the network, or its process ended before it was done.
    """
    command = [sys.executable, "-m", "build_engine.compile.compiler", str(os.getpid())]
    request = TypeAdapter(PlanOptions).dump_json(replace(options, timing_cache=None)) + b"\n" + onnx_graph
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", env=_environment()
    ) as process:
        try:
            answer, words = process.communicate(request)
        except BaseException:  # Ctrl-C above all
            process.kill()
            process.wait()
            raise
    if process.returncode != 0:
        raise _ended(process.returncode, words.decode(errors="replace").strip())
    line, _, data = answer.partition(b"\n")
    header = json.loads(line)
    if "error" in header:
        raise unpack_error(header["error"])
    pinned = bool(header.pop("pinned"))
    layers = tuple(CompiledLayer(layer["name"], tuple(layer["sources"])) for layer in header.pop("layers"))
    return CompiledPlan(data=data, layers=layers, **header), pinned


def _environment() -> dict[str, str]:
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)  # where this process finds its modules
    given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PYTHONPATH": path, **_FIXED, **given}


def _ended(code: int, words: str) -> BuildFailed:
    if code == -signal.SIGKILL:
        return BuildFailed(
            "TensorRT-RTX's compiler was killed, as the kernel does where memory runs out",
            remedy="free memory, build with a smaller --max-batch, or build on a machine with more memory",
        )
    cause = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
    said = f"; its last words: …{words[-_LAST_WORDS:]}" if words else ""
    return BuildFailed(
        f"TensorRT-RTX's compiler ended {cause} before it was done{said}",
        remedy="build with --target cpu to see whether the rest works, and report this as a bug",
    )
