"""A source that another package provides, for example the renderer of `surround`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from client.errors import SourceError
from client.frames import Camera, Image, Intrinsics, Mounting


class PluginSource:
    """What `factory(spec)` of an entry point gives.

    It has `cameras`, each with `id`, `width`, `height`, `fx`, `fy`, `cx`, `cy` in pixels, `position` in metres and
    `yaw`, `pitch`, `roll` in radians, and `frames()`, which yields RGB images by camera id, a dictionary per time step.

    Raises:
        SourceError: It cannot be imported, or does not understand its options.
    """

    is_live = False

    def __init__(self, entry: EntryPoint, options: str) -> None:
        try:
            factory = entry.load()
        except (ImportError, AttributeError) as error:
            raise SourceError(f"the source {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
        try:
            self._source: Any = factory(options)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise SourceError(f"{entry.name}:{options}: {error}") from error
        self.cameras = tuple(_camera(camera) for camera in self._source.cameras)

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """As the plugin gives them."""
        yield from self._source.frames()


def _camera(camera: Any) -> Camera:  # noqa: ANN401 - another package's type, described above
    x, y, z = camera.position
    return Camera(
        id=camera.id,
        width=camera.width,
        height=camera.height,
        intrinsics=Intrinsics(camera.fx, camera.fy, camera.cx, camera.cy),
        mounting=Mounting(x, y, z, camera.yaw, camera.pitch, camera.roll),
    )
