"""TensorRT-RTX's compiler in a process of its own: `python -m build_engine.compile.compiler`.

Started by `build_engine.compile.repeatable` and by nobody else. The compiler numbers its symbolic sizes in an order
that depends on addresses in memory, so it gets the same ones each time: its libraries and its heap lie where `pin`
says, and nobody else allocates in that heap.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

from pydantic import TypeAdapter

from build_engine.compile.addresses import pin
from engine.errors import EngineError, pack_error
from engine.lifetime import die_with
from engine.tensorrt.api import load_tensorrt
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan

T = TypeVar("T")
_STACK_BYTES = 8 << 20
"""Threads get stacks of this size from the heap's room, and `unlimited` turns the order of mappings round."""
_LIBRARIES_BELOW = 0x3000_0000_0000
_HEAP_BELOW = 0x2000_0000_0000


def main(arguments: list[str]) -> int:
    """Compile what comes by standard input; the answer goes to standard output.

    In: a line of JSON with the fields of `PlanOptions`, then the graph. Out: a line of JSON with the other fields of
    `CompiledPlan` and whether addresses were `pinned`, then the plan; or a line with an `error`.

    Args:
        arguments: The process id of the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the parent ends this process
    die_with(int(arguments[0]))
    _fix_stack_size()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    options = TypeAdapter(PlanOptions).validate_json(sys.stdin.buffer.readline())
    try:
        plan, pinned = _compile(sys.stdin.buffer.read(), options)
    except EngineError as error:
        _write(answer, {"error": pack_error(error)}, b"")
    else:
        fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.name != "data"}
        layers = [dataclasses.asdict(layer) for layer in plan.layers]
        _write(answer, {**fields, "layers": layers, "pinned": pinned}, plan.data)
    return 0


def _compile(graph: bytes, options: PlanOptions) -> tuple[CompiledPlan, bool]:
    """Load the library in a thread and compile in another, begun while the first one lives: each has its own heap."""
    below_libraries = pin(_LIBRARIES_BELOW)

    def load_then_compile() -> tuple[CompiledPlan, bool]:
        load_tensorrt("rtx")
        below_heap = pin(_HEAP_BELOW)
        return _in_a_thread(lambda: build_plan(graph, "rtx", options)), below_libraries and below_heap

    return _in_a_thread(load_then_compile)


def _in_a_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _fix_stack_size() -> None:
    """Begin again with the usual limit, where this process was started with another one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(hard, _STACK_BYTES)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very command


def _write(answer: BinaryIO, header: dict[str, Any], data: bytes) -> None:
    with answer:
        answer.write(json.dumps(header).encode() + b"\n")
        answer.write(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
