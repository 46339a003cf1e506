"""Real compiles in real processes: TensorRT-RTX needs no GPU for them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from build_engine.compile.repeatable import build_repeatably
from build_engine.compile.tensorrt import compile_graph
from build_engine.graph import serialize
from engine.errors import BuildFailed, RuntimeUnavailable
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan
from tests.build_engine.compile.test_tensorrt import Noting

pytest.importorskip("tensorrt_rtx", reason="pip install 'monocoque[rtx]'")
SEVERAL = PlanOptions(max_batch=4)


@pytest.fixture(scope="module")
def graph(camera_detector: onnx.ModelProto) -> bytes:
    """With its branches: what TensorRT-RTX makes of it for several batch sizes has no two times the same bytes."""
    return serialize(camera_detector)


@pytest.fixture(scope="module")
def plan(graph: bytes) -> CompiledPlan:
    found, pinned = build_repeatably(graph, SEVERAL)
    assert pinned
    return found


@pytest.fixture
def limits() -> Iterator[Callable[[int, int], None]]:
    """Sets soft limits of this process, which what it starts inherits."""
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_STACK, resource.RLIMIT_AS)}
    yield lambda kind, soft: resource.setrlimit(kind, (soft, before[kind][1]))
    for kind, both in before.items():
        resource.setrlimit(kind, both)


def test_it_is_the_plan_that_this_process_would_have_compiled(graph: bytes, plan: CompiledPlan) -> None:
    here = build_plan(graph, "rtx", SEVERAL)
    assert len(plan.data) == len(here.data)
    assert len(plan.layers) == len(here.layers)
    assert {source for layer in plan.layers for source in layer.sources} == {
        source for layer in here.layers for source in layer.sources
    }
    assert (plan.activation_bytes, plan.weights_bytes, plan.key, plan.timing_cache) == (
        here.activation_bytes,
        here.weights_bytes,
        here.key,
        None,
    )


def test_the_same_graph_gives_the_same_bytes(graph: bytes, plan: CompiledPlan) -> None:
    assert build_repeatably(graph, SEVERAL)[0].data == plan.data


def test_what_surrounds_a_build_is_not_in_its_bytes(
    graph: bytes,
    plan: CompiledPlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: Callable[[int, int], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("SOMETHING_LONG", "x" * 50_000)
    monkeypatch.syspath_prepend(tmp_path / "another folder with modules")
    assert build_repeatably(graph, SEVERAL)[0].data == plan.data
    for stack_bytes in (1 << 20, 64 << 20):
        limits(resource.RLIMIT_STACK, stack_bytes)
        assert build_repeatably(graph, SEVERAL)[0].data == plan.data


def test_the_number_of_processors_is_not_in_its_bytes(graph: bytes, plan: CompiledPlan) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert build_repeatably(graph, SEVERAL)[0].data == plan.data
    finally:
        os.sched_setaffinity(0, allowed)


AS_IT_COMES = """
import hashlib, sys
from engine.tensorrt.plan import PlanOptions, build_plan
print(hashlib.sha256(build_plan(sys.stdin.buffer.read(), "rtx", PlanOptions(max_batch=4)).data).hexdigest())
"""


def test_compiled_as_it_comes_its_bytes_differ(graph: bytes) -> None:
    """Else the tests above would prove nothing; five of five differed. Should it fail: is the compiler a newer one?"""
    command = [sys.executable, "-c", AS_IT_COMES]
    found = {subprocess.run(command, input=graph, capture_output=True, check=True).stdout for _ in range(5)}
    assert len(found) > 1


def test_where_addresses_cannot_be_chosen_a_note_says_so(
    graph: bytes, plan: CompiledPlan, limits: Callable[[int, int], None]
) -> None:
    limits(resource.RLIMIT_AS, 1 << 40)
    noting = Noting()
    compiled = compile_graph("float", graph, "rtx", PlanOptions(max_batch=4), noting)
    assert compiled is not None and len(compiled.plan.data) == len(plan.data)
    (note,) = noting.notes
    assert "the next build of float may differ" in note and "ulimit -v" in note


def test_a_refusal_has_the_words_it_has_here() -> None:
    with pytest.raises(BuildFailed) as here:
        build_plan(b"this is no ONNX file", "rtx")
    with pytest.raises(BuildFailed) as there:
        build_repeatably(b"this is no ONNX file", PlanOptions())
    assert (there.value.message, there.value.remedy) == (here.value.message, here.value.remedy)


def test_a_missing_library_is_said_as_here(graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeUnavailable, match="'tensorrt_rtx', which does not load: no such library"):
        build_repeatably(graph, PlanOptions())


def test_a_compiler_that_was_killed_says_what_that_means(graph: bytes) -> None:
    with ThreadPoolExecutor() as pool:
        outcome = pool.submit(build_repeatably, graph, SEVERAL)
        os.kill(compiler_of(os.getpid()), signal.SIGKILL)
        with pytest.raises(BuildFailed, match="compiler was killed") as caught:
            outcome.result(60)
    assert "memory" in caught.value.remedy


def test_a_compiler_that_breaks_down_is_quoted(graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("import os; os.write(2, b'my last words'); os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BuildFailed, match=r"ended by signal SIGABRT before it was done; .*my last words"):
        build_repeatably(graph, PlanOptions())


def test_ctrl_c_ends_the_compiler_too_and_leaves_nothing(classifier_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build_engine", "build", str(classifier_file), "--target", "rtx"]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path / "out" / "bundle")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as build:
        compiler = compiler_of(build.pid)
        wait_for_library(compiler)  # by then both are where they wait for each other
        os.kill(compiler, signal.SIGSTOP)  # it will not be done before
        os.killpg(build.pid, signal.SIGINT)
        _, words = build.communicate(timeout=60)
    assert build.returncode == 2
    assert "stopped; nothing was written" in words and "Traceback" not in words
    assert ends(compiler)
    assert not (tmp_path / "out").exists()


def ends(process: int) -> bool:
    """Whether a process that was told to end does; whoever inherited it may not have waited for it yet."""
    for _ in range(10_000):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.001)
                continue
        return True
    return False


def wait_for_library(compiler: int) -> None:
    """Until it has loaded what it compiles with."""
    for _ in range(60_000):
        if "tensorrt_rtx" in Path(f"/proc/{compiler}/maps").read_text():
            return
        time.sleep(0.001)
    raise AssertionError("the compiler loaded no library")


def compiler_of(parent: int) -> int:
    """The compiler's process, as soon as there is one."""
    for _ in range(60_000):
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                if b"build_engine.compile.compiler" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        time.sleep(0.001)
    raise AssertionError("no compiler was started")
