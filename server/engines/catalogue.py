"""The engines that are served, by name and version, and the bundles that could be."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import MANIFEST, Bundle
from engine.errors import EngineError
from server.engines.lane import EngineState, Lane
from server.engines.opening import EngineHost
from server.engines.served_engine import ServedEngine
from server.engines.thread import Turn
from server.errors import EngineNotFound, ServerError, StartFailed, SwapRefused
from server.host.background import in_background

log = logging.getLogger("monocoque.engine")


@dataclass(frozen=True)
class CatalogueEntry:
    """One line of the repository's index.

    Attributes:
        name: The bundle's name.
        version: The bundle's version.
        state: READY, LOADING or UNAVAILABLE.
        reason: Why it is not ready; empty when it is.
    """

    name: str
    version: str
    state: EngineState
    reason: str


class EngineCatalogue:
    """Every engine of a server. On the event loop.

    Args:
        host: What engines are opened with.
        report: Told of each turn; on an engine's thread.
        repository: Directory of bundles that may be loaded by name; None where there is none.
    """

    def __init__(self, host: EngineHost, report: Callable[[Lane, Turn], None], repository: Path | None = None) -> None:
        self._host = host
        self._report = report
        self._repository = repository
        self._lanes: list[Lane] = []
        self._paths: dict[tuple[str, str], Path] = {}
        """Where the bundles lie that were named on the command line or found in the repository."""
        self._busy = asyncio.Lock()
        self.on_load: Callable[[Lane], None] = lambda _: None
        """Told of an engine that is served from now on."""
        self.on_rollback: Callable[[Lane, ServedEngine], None] = lambda _, __: None
        """Told of an engine that serves again, and of the one that failed in its place."""
        self.on_unload: Callable[[Lane], None] = lambda _: None
        """Told of an engine that is about to be unloaded."""
        self.on_restart: Callable[[Lane], None] = lambda _: None
        """Told of an engine whose process died and is opened again."""
        self.on_change: Callable[[], None] = lambda: None
        """Told that an engine came, went, or has another state."""

    async def open(self, paths: Sequence[Path]) -> None:
        """Load the bundles that the server was started with: those named, then those of the repository.

        Raises:
            EngineError: One cannot be loaded.
            StartFailed: One does not compute what it did when it was built, or there is no repository.
        """
        if self._repository is not None and not self._repository.is_dir():
            raise StartFailed(f"no directory at {self._repository}", remedy="check --repository")
        for path in (*paths, *_bundle_paths(self._repository)):
            bundle = await self._verified(path)
            await self._open_lane(bundle)

    @property
    def lanes(self) -> Sequence[Lane]:
        """Engines, in the order they were loaded."""
        return tuple(self._lanes)

    def find(self, name: str = "", version: str = "") -> Lane:
        """An engine.

        Args:
            name: The bundle's name; empty means the first that was loaded.
            version: The bundle's version; empty means the newest.

        Raises:
            EngineNotFound: None has this name and version; the message says which there are.
        """
        if not name and not version and self._lanes:
            return self._lanes[0]
        found = [lane for lane in self._lanes if lane.name == (name or self._lanes[0].name)]
        matching = [lane for lane in found if not version or lane.version == version]
        if matching:
            ready = [lane for lane in matching if lane.state is EngineState.READY]
            return max(ready or matching, key=lambda lane: version_order(lane.version))
        served = ", ".join(f"{lane.name} {lane.version}" for lane in self._lanes) or "none"
        wanted = f"{name} {version}".strip()
        raise EngineNotFound(f"no engine {wanted[:160]!r} is served", remedy=f"ask for one of: {served}")

    def index(self) -> list[CatalogueEntry]:
        """Every engine that is served, and every bundle that could be loaded, by name and version."""
        entries = {
            (lane.name, lane.version): CatalogueEntry(lane.name, lane.version, lane.state, lane.reason)
            for lane in self._lanes
        }
        for name, version in self._paths:
            entries.setdefault(
                (name, version), CatalogueEntry(name, version, EngineState.UNAVAILABLE, "it is not loaded")
            )
        return sorted(entries.values(), key=lambda entry: (entry.name, version_order(entry.version)))

    async def load(self, name: str, version: str = "") -> Lane:
        """Load an engine by its bundle's name, from the repository or where it was loaded from before.

        A bundle that is served already, unchanged, is left as it is; where its process died, it is opened at once.

        Args:
            name: The bundle's name.
            version: The bundle's version; empty means the newest there is.

        Raises:
            EngineNotFound: There is no such bundle.
            EngineError: It cannot be loaded.
            StartFailed: It does not compute what it did when it was built.
        """
        async with self._busy:
            bundle = await self._verified(await self._path_of(name, version))
            manifest = bundle.manifest
            for lane in self._lanes:
                if (lane.name, lane.version) == (manifest.name, manifest.version):
                    if lane.served.bundle.digest == bundle.digest:
                        if lane.state is not EngineState.READY:
                            await lane.swap(bundle)
                        return lane
                    await self._unload(lane)
            return await self._open_lane(bundle)

    async def swap(self, name: str, version: str, path: Path | None) -> tuple[Lane, ServedEngine]:
        """Put another bundle in an engine's place while its streams go on; see `Lane.swap`.

        A bundle that is served already is left as it is; where its process died, it is opened at once.

        Args:
            name: The engine's name; empty means the first that was loaded.
            version: The engine's version; empty means the newest.
            path: The new bundle; None means that it lies where the old one was.

        Returns:
            The engine's lane, and the engine that was there before.

        Raises:
            EngineNotFound: None has this name and version.
            SwapRefused: It cannot take the engine's place.
            EngineError: It cannot be loaded.
            StartFailed: It does not compute what it did when it was built.
        """
        async with self._busy:
            lane = self.find(name, version)
            old = lane.served
            bundle = await self._verified(path or old.bundle.path)
            if bundle.digest == old.bundle.digest and lane.state is EngineState.READY:
                return lane, old
            taken = [other for other in self._lanes if other is not lane and other.name == lane.name]
            if any(other.version == bundle.manifest.version for other in taken):
                raise SwapRefused(
                    f"{lane.name} {bundle.manifest.version} is served already, beside {lane.name} {lane.version}",
                    remedy="build the new bundle with another --version, or unload that one",
                )
            await lane.swap(bundle)
            self._paths.pop((lane.name, old.bundle.manifest.version), None)
            self._paths[lane.name, lane.version] = bundle.path
            return lane, old

    async def unload(self, name: str, version: str = "") -> None:
        """Stop serving an engine: what waits for it is answered, its streams end.

        Args:
            name: Its name.
            version: Its version; empty means all of them.

        Raises:
            EngineNotFound: None has this name and version.
        """
        self.find(name, version)
        async with self._busy:
            for lane in self.lanes:
                if lane.name == name and version in ("", lane.version):
                    await self._unload(lane)

    @property
    def opening(self) -> Sequence[str]:
        """The engines and bundles that are being opened now."""
        return self._host.openings.names

    def give_up(self) -> None:
        """Wait for nothing any more that is being opened, or would be: whoever waits is told `Draining`."""
        self._host.openings.give_up()

    async def close(self) -> None:
        """Stop serving. What is being opened is not waited for."""
        self.give_up()
        for lane in self._lanes:
            await lane.close()

    async def _verified(self, path: Path) -> Bundle:
        """Open a bundle: every byte of it is read."""
        openings = self._host.openings
        return await openings.result(openings.begin(str(path), in_background(Bundle.open, path)))

    async def _unload(self, lane: Lane) -> None:
        self._lanes.remove(lane)
        self.on_unload(lane)
        await lane.close()

    async def _open_lane(self, bundle: Bundle) -> Lane:
        manifest = bundle.manifest
        lane = Lane(manifest.name, manifest.version, self._host, self._report)
        if any((other.name, other.version) == (lane.name, lane.version) for other in self._lanes):
            raise StartFailed(
                f"two bundles are {lane.name} {lane.version}; the second is {bundle.path}",
                remedy="give one of them another --name or --version when it is built",
            )
        lane.on_rollback = self._rolled_back
        lane.on_restart = self._restarting
        lane.on_change = self._changed
        self._paths[lane.name, lane.version] = bundle.path
        self._lanes.append(lane)
        self.on_change()
        try:
            await lane.open(bundle)
        except BaseException:
            self._lanes.remove(lane)
            self.on_change()
            raise
        self.on_load(lane)
        return lane

    def _restarting(self, lane: Lane) -> None:
        self.on_restart(lane)

    def _changed(self, _: Lane) -> None:
        self.on_change()

    def _rolled_back(self, lane: Lane, failed: ServedEngine) -> None:
        self._paths.pop((lane.name, failed.bundle.manifest.version), None)
        self._paths[lane.name, lane.version] = lane.served.bundle.path
        self.on_rollback(lane, failed)

    async def _path_of(self, name: str, version: str) -> Path:
        """Where a bundle lies."""
        self._paths.update(await asyncio.wrap_future(in_background(_scan, self._repository)))
        versions = [known for known_name, known in self._paths if known_name == name and version in ("", known)]
        if not versions:
            known = ", ".join(f"{known_name} {known_version}" for known_name, known_version in self._paths) or "none"
            raise EngineNotFound(
                f"no bundle {f'{name} {version}'.strip()[:160]!r} is known",
                remedy=f"put it into --repository, or ask for one of: {known}",
            )
        return self._paths[name, max(versions, key=version_order)]


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions as people count: 1.9 before 1.10, and 1.0-rc before 1.0.1."""
    parts: Iterable[str] = re.findall(r"\d+|[A-Za-z]+", version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _bundle_paths(repository: Path | None) -> Iterator[Path]:
    """Bundles directly below a directory, and one level deeper (`NAME/VERSION/`), in order."""
    if repository is None:
        return
    for path in sorted(repository.iterdir()):
        if path.suffix == ".zip" or (path / MANIFEST).is_file():
            yield path
        elif path.is_dir():
            yield from (child for child in sorted(path.iterdir()) if (child / MANIFEST).is_file())


def _scan(repository: Path | None) -> dict[tuple[str, str], Path]:
    """Name and version of each bundle in the repository; a broken one is left out and said in the log."""
    found = {}
    for path in _bundle_paths(repository):
        try:
            manifest = Bundle.open(path).manifest
        except (EngineError, ServerError) as error:
            log.warning("%s is left out: %s", path, error)
            continue
        found[manifest.name, manifest.version] = path
    return found
