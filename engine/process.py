"""A runtime that lives in another process: a crash of the engine is an error here, not the end of the server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from engine.bundle import Bundle
from engine.channel import MAX_DESCRIPTORS, Channel, Message, pack_batch, unpack_description
from engine.errors import BundleCorrupt, EngineError, RunFailed, unpack_error
from engine.manifest import Target
from engine.runtime import Batch, MemoryReport, RunReport, RuntimeDescription
from engine.slots import RegionTable

RUN_TIMEOUT_S = 30.0
"""A batch takes milliseconds; an engine that has not answered by then hangs in its driver."""
OPEN_TIMEOUT_S = 3600.0
"""A first compile takes minutes on an Orin, or tens of them; one that takes longer hangs."""
CLOSE_TIMEOUT_S = 5.0
_ROOT = Path(__file__).resolve().parents[1]


class WorkerRuntime:
    """The engine of a bundle, in a process of its own. It behaves as the same runtime would in this one.

    The process is exec'd, never forked: a fork with live threads or a CUDA context is unsafe. Regions go there by
    descriptor the first time a batch refers to them; tensors never travel. The kernel kills the process when the thread
    that opened it ends, so open, run and close it on one thread that lives as long.

    Args:
        bundle: An opened bundle; the process opens it again by its path and must find the same digest.
        target: What to run on.
        regions: The memory that batches will refer to.
        threads: Threads of one inference on a CPU; None means one per core.
        spin: Whether they wait for work without sleeping.
        fallback: Whether to run on the CPU where the target cannot be had.
        plan_cache: Directory for plans compiled on this device; None means the user's cache directory.
        run_timeout_s: The process is killed when a batch takes longer.
        opening: Entered with the process while its engine is opened, which may take minutes: whoever kills it cuts that
            short.

    Raises:
        EngineError: Whatever `open_runtime` raises there.
        BundleCorrupt: The bundle changed since it was opened here.
        RunFailed: The process ended before the engine was open, or did not open it within an hour.

    Attributes:
        pid: The process.
        sentinel: A descriptor that becomes readable when the process ends (pidfd_open(2)); closed by `close`.
    """

    def __init__(
        self,
        bundle: Bundle,
        target: Target,
        regions: RegionTable,
        *,
        threads: int | None = None,
        spin: bool = False,
        fallback: bool = False,
        plan_cache: Path | None = None,
        run_timeout_s: float = RUN_TIMEOUT_S,
        opening: Callable[[subprocess.Popen[bytes]], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._regions = regions
        self._run_timeout_s = run_timeout_s
        self._known: set[int] = set()
        self._lost = ""
        self._closed = False
        self._channel, theirs = Channel.pair()
        try:
            self._process = _start(theirs)
            self.sentinel = os.pidfd_open(self._process.pid)
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        try:
            request = {
                "op": "open",
                "bundle": str(bundle.path.absolute()),
                "target": target,
                "threads": threads,
                "spin": spin,
                "fallback": fallback,
                "plan_cache": None if plan_cache is None else str(plan_cache.absolute()),
            }
            with opening(self._process):
                opened = self._ask(request, OPEN_TIMEOUT_S)
            if opened["digest"] != bundle.digest:
                raise BundleCorrupt(
                    f"{bundle.path} changed: its digest is {opened['digest']}, it was opened with {bundle.digest}",
                    remedy="restart, so that everything is of the same bundle",
                )
            self._description = unpack_description(opened["description"])
        except BaseException:
            self.close()
            raise

    @property
    def fate(self) -> str:
        """Why every batch fails from now on, so that another runtime must be opened; empty while the process runs.

        Any thread may ask.
        """
        if self._closed:
            return "the engine was closed"
        code = self._process.poll()
        if code is None and not self._lost:
            return ""
        return f"the engine's process {self.pid} {self._lost or 'ended'} ({_cause(code)})"

    def describe(self) -> RuntimeDescription:
        """What is loaded there."""
        return self._description

    def run(self, batch: Batch) -> RunReport:
        """Execute one batch.

        Raises:
            RunFailed: The batch failed there, or the process ended or hung; the message says which.
        """
        used = {handle.region for handle in (*batch.inputs.values(), *batch.outputs.values())}
        self._hand_over(used)
        answer = self._ask({"op": "run", **pack_batch(batch)}, self._run_timeout_s)
        shapes = {name: tuple(shape) for name, shape in answer["shapes"].items()}
        return RunReport(inference_ns=answer["inference_ns"], copy_ns=answer["copy_ns"], shapes=shapes)

    def memory(self) -> MemoryReport:
        """Memory that the engine holds there now.

        Raises:
            RunFailed: The process ended.
        """
        return MemoryReport(self._ask({"op": "memory"}, self._run_timeout_s)["bytes_by_kind"])

    def close(self) -> None:
        """End the process. A second call does nothing."""
        if self._closed:
            return
        if not self._lost:
            with contextlib.suppress(EngineError):
                self._ask({"op": "close"}, CLOSE_TIMEOUT_S)
        self._closed = True
        self._channel.close()  # it ends by itself on this, too
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self.sentinel)

    def _hand_over(self, used: Iterable[int]) -> None:
        """Tell the process of regions it does not know, and of those that are gone."""
        gone = [number for number in self._known if number not in self._regions]
        if gone:
            self._ask({"op": "forget", "numbers": gone}, self._run_timeout_s)
            self._known.difference_update(gone)
        fresh = sorted(set(used) - self._known)
        for start in range(0, len(fresh), MAX_DESCRIPTORS):
            numbers = fresh[start : start + MAX_DESCRIPTORS]
            try:
                descriptors = [self._regions[number].fd for number in numbers]
            except KeyError as error:
                raise RunFailed(
                    f"a slot is not usable: region {error} is unknown", remedy="report this as a bug of the caller"
                ) from error
            self._ask({"op": "regions", "numbers": numbers}, self._run_timeout_s, descriptors)
            self._known.update(numbers)

    def _ask(self, message: Message, timeout_s: float, descriptors: list[int] | None = None) -> Message:
        if self._closed or self._lost:
            raise RunFailed(self.fate, remedy="open the engine again")
        try:
            self._channel.send(message, descriptors or ())
            received = self._channel.receive(timeout_s)
        except TimeoutError:
            raise self._lose(f"did not answer within {timeout_s:g} s and was killed") from None
        except ConnectionError as error:  # it has closed its end, or the kernel did
            raise self._lose("ended") from error
        except OSError as error:
            raise self._lose(f"is out of reach: {error}") from error
        if received is None:
            raise self._lose("ended")
        answer, _ = received
        if "error" in answer:
            raise unpack_error(answer["error"])
        return answer

    def _lose(self, what: str) -> RunFailed:
        """The process is lost, for good."""
        self._lost = what  # first: whoever sees it end asks why
        if what != "ended":
            self._process.kill()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return RunFailed(self.fate, remedy="open the engine again; the reason is in its log")


def _start(channel: Channel) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "engine.worker", str(channel.fileno()), str(os.getpid())],
        pass_fds=(channel.fileno(),),
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )


def _cause(code: int | None) -> str:
    if code is None:
        return "it does not end"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
