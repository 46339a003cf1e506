"""For tests in which engines' processes die."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.engines import supervision
from tests.server.bundles import write_bundle
from tests.server.engines.dying import workers
from tests.server.raw_client import PATIENCE_SECONDS

QUICK_FAILURES = 4


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One that a test may move away."""
    return write_bundle(tmp_path / "quarters")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few tries, which follow each other at once."""
    monkeypatch.setattr(supervision, "MOST_FAILURES", QUICK_FAILURES)
    monkeypatch.setattr(supervision, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(supervision, "LONGEST_DELAY_SECONDS", 0.01)
    return


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """A server that stops does not wait for what is being opened; the next test does."""
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while workers() or any(thread.name.startswith("engine-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "an engine was left behind"
        time.sleep(0.001)
