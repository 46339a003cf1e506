import importlib.util
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.allocate import allocate
from engine.bundle import Bundle
from engine.channel import MAX_MESSAGE_BYTES, Channel, pack_batch, pack_description, unpack_batch, unpack_description
from engine.errors import BundleCorrupt, BundleInvalid, BundleNotFound, RunFailed, RuntimeUnavailable
from engine.opening import open_runtime
from engine.process import WorkerRuntime
from engine.runtime import Batch
from engine.slots import RegionTable, SlotHandle
from engine.worker import main, serve
from tests.engine.bundles import frames, write_bundle

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 10.0
"""Only a hang takes this long."""
NO_GPU_LIBRARIES = pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("pycuda", "tensorrt")), reason="the GPU's libraries are installed"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "camera")


@pytest.fixture(scope="module")
def regions() -> Iterator[RegionTable]:
    table = RegionTable()
    yield table
    table.close()


@pytest.fixture(scope="module")
def worker(bundle: Bundle, regions: RegionTable) -> Iterator[WorkerRuntime]:
    runtime = WorkerRuntime(bundle, "cpu", regions, threads=1)
    yield runtime
    runtime.close()


@pytest.fixture
def doomed(bundle: Bundle, regions: RegionTable) -> Iterator[WorkerRuntime]:
    """One that the test may kill."""
    runtime = WorkerRuntime(bundle, "cpu", regions, threads=1)
    yield runtime
    runtime.close()


def test_the_answers_are_those_of_the_same_engine_in_this_process(
    bundle: Bundle, regions: RegionTable, worker: WorkerRuntime
) -> None:
    here = open_runtime(bundle, "cpu", regions, threads=1)
    assert worker.describe() == here.describe()
    answers = []
    for runtime in (here, worker):
        for count in (1, 3, 2):
            with allocate(runtime.describe(), regions, count) as slots:
                slots.view("images")[:] = frames(count, seed=count)
                report = runtime.run(slots.batch(count))
                assert report.inference_ns > 0
                answers.append(slots.view("features").copy())
    for mine, theirs in zip(answers[:3], answers[3:], strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.any()


def test_its_memory_is_its_own(worker: WorkerRuntime) -> None:
    assert set(worker.memory().bytes_by_kind) == {"weights", "activations"}


def test_a_wrong_batch_is_refused_as_it_would_be_here(worker: WorkerRuntime, regions: RegionTable) -> None:
    with allocate(worker.describe(), regions, 2) as slots:
        handle = slots.inputs["images"]
        odd = SlotHandle(handle.region, handle.offset_bytes, (2, 5, 5, 3), "uint8")
        with pytest.raises(
            RunFailed, match=r"images is uint8\[2, 5, 5, 3\], the engine wants uint8\[batch, 24, 32, 3\]"
        ):
            worker.run(Batch({"images": odd}, slots.outputs))
        worker.run(slots.batch(1))  # and it still serves


def test_a_slot_past_its_region_is_refused(worker: WorkerRuntime, regions: RegionTable) -> None:
    with allocate(worker.describe(), regions, 1) as slots:
        far = SlotHandle(slots.inputs["images"].region, 1 << 30, (1, 24, 32, 3), "uint8")
        with pytest.raises(RunFailed, match="a slot is not usable"):
            worker.run(Batch({"images": far}, slots.outputs))


def test_an_unknown_region_is_refused(worker: WorkerRuntime, regions: RegionTable) -> None:
    with allocate(worker.describe(), regions, 1) as slots:
        batch = Batch({"images": SlotHandle(99, 0, (1, 24, 32, 3), "uint8")}, slots.batch(1).outputs)
        with pytest.raises(RunFailed, match="region 99 is unknown"):
            worker.run(batch)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_an_error_and_no_hang(
    doomed: WorkerRuntime, regions: RegionTable, kind: signal.Signals
) -> None:
    with allocate(doomed.describe(), regions, 1) as slots:
        doomed.run(slots.batch(1))
        os.kill(doomed.pid, kind)
        with pytest.raises(RunFailed, match=rf"process {doomed.pid} .*signal {kind.name}"):
            doomed.run(slots.batch(1))
        assert kind.name in doomed.fate
        with pytest.raises(RunFailed, match=kind.name):
            doomed.run(slots.batch(1))
        with pytest.raises(RunFailed, match=kind.name):
            doomed.memory()


def test_its_end_is_seen_without_asking_it_anything(doomed: WorkerRuntime) -> None:
    assert select.select([doomed.sentinel], [], [], 0)[0] == []
    assert not doomed.fate
    os.kill(doomed.pid, signal.SIGKILL)
    assert select.select([doomed.sentinel], [], [], PATIENCE_SECONDS)[0] == [doomed.sentinel]
    assert doomed.fate == f"the engine's process {doomed.pid} ended (signal SIGKILL)"


def test_what_asks_the_server_to_stop_leaves_the_worker_to_finish(worker: WorkerRuntime, regions: RegionTable) -> None:
    """Ctrl-C and a service manager signal the whole group, and the server still drains."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, kind)
    with allocate(worker.describe(), regions, 1) as slots:
        worker.run(slots.batch(1))
    assert not worker.fate


def test_a_worker_that_hangs_is_killed(bundle: Bundle, regions: RegionTable) -> None:
    worker = WorkerRuntime(bundle, "cpu", regions, threads=1)
    with allocate(worker.describe(), regions, 1) as slots:
        worker.run(slots.batch(1))
        worker._run_timeout_s = 0.5
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(RunFailed, match=r"did not answer within 0\.5 s and was killed \(signal SIGKILL\)"):
            worker.run(slots.batch(1))
    worker.close()


def test_a_worker_that_does_not_open_its_engine_is_killed(
    bundle: Bundle, regions: RegionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.process.OPEN_TIMEOUT_S", 0.001)  # less than an interpreter takes to start
    with pytest.raises(RunFailed, match=r"did not answer within 0\.001 s and was killed \(signal SIGKILL\)"):
        WorkerRuntime(bundle, "cpu", regions, threads=1)


def test_closing_ends_the_process(bundle: Bundle, regions: RegionTable) -> None:
    worker = WorkerRuntime(bundle, "cpu", regions)
    assert not worker.fate
    worker.close()
    worker.close()
    assert worker.fate == "the engine was closed"
    assert not Path(f"/proc/{worker.pid}").exists()
    with pytest.raises(RunFailed, match="was closed"):
        worker.memory()


@NO_GPU_LIBRARIES
def test_what_opening_raises_there_is_raised_here(bundle: Bundle, regions: RegionTable) -> None:
    with pytest.raises(BundleInvalid, match="no graph for target 'gpu'"):
        WorkerRuntime(bundle, "gpu", regions)
    with pytest.raises(RuntimeUnavailable, match="does not load"):
        WorkerRuntime(bundle, "rtx", regions)


@NO_GPU_LIBRARIES
def test_a_fallback_says_that_it_is_one(bundle: Bundle, regions: RegionTable) -> None:
    worker = WorkerRuntime(bundle, "rtx", regions, fallback=True)
    assert worker.describe().degraded.startswith("rtx is not available: ")
    worker.close()


def test_a_bundle_that_changed_in_between(tmp_path: Path, regions: RegionTable) -> None:
    bundle = write_bundle(tmp_path / "bundle", version="1.0")
    write_bundle(tmp_path / "bundle", version="2.0")
    with pytest.raises(BundleCorrupt, match="its digest is"):
        WorkerRuntime(bundle, "cpu", regions)


def test_a_bundle_that_vanished_in_between(tmp_path: Path, regions: RegionTable) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (tmp_path / "bundle").rename(tmp_path / "moved")
    with pytest.raises(BundleNotFound):
        WorkerRuntime(bundle, "cpu", regions)


def test_it_dies_with_its_parent(bundle: Bundle) -> None:
    """Even where the parent is killed and closes nothing."""
    script = (
        "import sys, time\n"
        "from engine.bundle import Bundle\n"
        "from engine.process import WorkerRuntime\n"
        "from engine.slots import RegionTable\n"
        "worker = WorkerRuntime(Bundle.open(sys.argv[1]), 'cpu', RegionTable())\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(bundle.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    for _ in range(6000):
        if not runs(pid):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} outlived its parent")


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie waits for whoever adopted it


def test_a_removed_region_is_forgotten_there(worker: WorkerRuntime, regions: RegionTable) -> None:
    for _ in range(3):
        with allocate(worker.describe(), regions, 1) as slots:
            worker.run(slots.batch(1))
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert maps.count("memfd:monocoque") <= 1


def test_it_is_no_command_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python -m server" in capsys.readouterr().err


@pytest.mark.parametrize(
    "message", [{}, {"op": "dance"}, {"op": "run"}, {"op": "memory"}, {"op": "regions", "numbers": [1]}, {"op": "open"}]
)
def test_every_request_has_an_answer(message: dict[str, Any]) -> None:
    here, there = Channel.pair()
    here.send(message)
    here.send({"op": "close"})
    serve(there)
    answer, _ = here.receive(1)
    assert set(answer["error"]) == {"type", "message", "remedy"}
    assert here.receive(1) == ({}, [])
    assert here.receive(1) is None
    here.close()


def test_messages_and_descriptors_arrive(tmp_path: Path) -> None:
    here, there = Channel.pair()
    read, write = os.pipe()
    here.send({"pipe": True}, [write])
    message, (descriptor,) = there.receive(1)
    assert message == {"pipe": True}
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"hello")
    assert os.read(read, 5) == b"hello"
    for number in (read, write, descriptor):
        os.close(number)
    here.close()
    assert there.receive(1) is None
    there.close()


def test_a_message_that_is_too_large_is_not_sent() -> None:
    here, there = Channel.pair()
    with pytest.raises(OSError, match="too large"):
        here.send({"text": "x" * MAX_MESSAGE_BYTES})
    here.close()
    there.close()


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    here, there = Channel.pair()
    here._socket.send(data)
    with pytest.raises(OSError, match="a message is no JSON"):
        there.receive(1)
    here.close()
    there.close()


def test_nothing_comes_in_time() -> None:
    here, there = Channel.pair()
    with pytest.raises(TimeoutError):
        there.receive(0.01)
    here.close()
    there.close()


def test_batches_and_descriptions_survive_the_way(worker: WorkerRuntime) -> None:
    batch = Batch({"x": SlotHandle(1, 256, (2, 3), "float32")}, {"y": SlotHandle(2, 0, (), "int64")})
    assert unpack_batch(pack_batch(batch)) == batch
    assert unpack_description(pack_description(worker.describe())) == worker.describe()


@pytest.mark.parametrize(
    "message", [{}, {"inputs": {}}, {"inputs": {"x": [1]}, "outputs": {}}, {"inputs": 3, "outputs": {}}]
)
def test_what_is_no_batch_is_an_error(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a batch"):
        unpack_batch(message)
