"""A server for the length of a `with` block. It is never left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from demo.errors import DemoError

START_SECONDS = 60.0
STOP_SECONDS = 20.0

_SERVING = re.compile(r"serving .* at (\S+:\d+), metrics at (\S+)")


class Serving:
    """`python -m server BUNDLE` on free ports of the loopback.

    Args:
        bundle: What to serve.
        log: File for what the server says.

    Attributes:
        address: Where it takes frames.
        metrics: Where Prometheus reads.
        exit_code: How it ended; None while it runs.
        stop_seconds: How long stopping took.
    """

    def __init__(self, bundle: Path, log: Path) -> None:
        self.address = ""
        self.metrics = ""
        self.exit_code: int | None = None
        self.stop_seconds = 0.0
        self._bundle = bundle
        self._log = log

    def stop(self) -> None:
        """Ask it to finish (SIGTERM), and wait until it has.

        Raises:
            DemoError: It did not finish in time, or not with exit code 0.
        """
        begun = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            raise DemoError(f"the server did not stop within {STOP_SECONDS:g} s of SIGTERM\n{self._tail()}") from None
        self.stop_seconds = round(time.monotonic() - begun, 2)
        if self.exit_code:
            raise DemoError(f"the server ended with exit code {self.exit_code}\n{self._tail()}")

    def __enter__(self) -> Serving:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "server", str(self._bundle), "--port", "0", "--metrics-port", "0", *_threads()],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the server
            )
        try:
            self._wait_until_serving()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.exit_code is not None:
            return
        if kind is not None:
            self._kill()
        elif self._process.poll() is None:
            self.stop()
        else:
            self.exit_code = self._process.returncode
            raise DemoError(f"the server ended by itself, with exit code {self.exit_code}\n{self._tail()}")

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = _SERVING.search(self._log.read_text(encoding="utf-8", errors="replace"))
            if found is not None:
                self.address, self.metrics = found.groups()
                return
            if self._process.poll() is not None:
                raise DemoError(f"the server ended with exit code {self._process.returncode}\n{self._tail()}")
            time.sleep(0.05)
        raise DemoError(f"the server was not ready within {START_SECONDS:g} s\n{self._tail()}")

    def _kill(self) -> None:
        self._process.kill()
        self.exit_code = self._process.wait()

    def _tail(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        return "\n".join([f"  its log, {self._log}, ends with:", *(f"    {line}" for line in lines)])


def _threads() -> list[str]:
    """On few cores, leave one to the six cameras that are rendered on the same machine."""
    return ["--threads", "1"] if (os.cpu_count() or 1) <= 2 else []
