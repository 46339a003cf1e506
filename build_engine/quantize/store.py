"""Measurements that outlive a build: a second search, or one that was interrupted, begins where the first one ended."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from build_engine.progress import Progress


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/monocoque/precision`, or the same under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monocoque" / "precision"


@dataclass(frozen=True)
class Measured:
    """Figures by name, and the seconds that it took to measure them."""

    figures: Mapping[str, float]
    seconds: float


class Store:
    """Figures by what they were measured on: a file per measurement, there completely or not at all.

    Args:
        folder: Where; made when the first measurement is kept. None keeps nothing.
        progress: Told once if the folder cannot be written: a search goes on without it.
    """

    def __init__(self, folder: Path | None, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self.found = 0
        self.measured = 0

    def measured_once(
        self,
        key: str,
        measure: Callable[[], Mapping[str, float]],
        suffices: Callable[[Mapping[str, float]], bool] = lambda _figures: True,
    ) -> Measured:
        """What was measured under this key before, where that suffices, or is now."""
        if (known := self.get(key)) is not None and suffices(known.figures):
            return known
        started = time.perf_counter()
        figures = measure()
        fresh = Measured(figures, time.perf_counter() - started)
        self.put(key, fresh)
        return fresh

    def get(self, key: str) -> Measured | None:
        """What was measured under this key before; None where nothing was, or where its file was damaged."""
        if self._folder is None:
            return None
        try:
            content = json.loads((self._folder / f"{key}.json").read_bytes())
            figures = {str(name): float(value) for name, value in content["figures"].items()}
            known = Measured(figures, float(content["seconds"]))
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return None
        self.found += 1
        return known

    def put(self, key: str, fresh: Measured) -> None:
        """Keep a measurement."""
        self.measured += 1
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".", delete=False) as file:
                scratch = Path(file.name)
                try:
                    json.dump({"figures": dict(fresh.figures), "seconds": fresh.seconds}, file)
                    file.close()
                    scratch.replace(self._folder / f"{key}.json")
                except BaseException:
                    scratch.unlink(missing_ok=True)
                    raise
        except OSError as error:
            self._progress.note(
                f"measurements cannot be kept in {self._folder}: {error.strerror}; the search goes on, but an "
                "interrupted one would start over (--search-cache names another folder)"
            )
            self._folder = None


def digest(*parts: bytes | str) -> str:
    """One key for everything that a measurement depends on."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()
