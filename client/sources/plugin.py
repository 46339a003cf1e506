"""A source that another package provides, for example the renderer of `surround`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from client.errors import SourceError
from client.frames import Camera, Image, Intrinsics, Mounting


class PluginSource:
    """What `factory(options)` of an entry point gives, for example that of `surround`.

    It has `cameras`, each with `id`, `width`, `height`, `fx`, `fy`, `cx`, `cy` in pixels, `position` in metres and
    `yaw`, `pitch`, `roll` in radians, and `frames()`, which yields `(time_ns, {camera id: RGB image})` per time step.
    Its options are `key=value` pairs separated by commas; `fps` is the rate of its time steps, so that what it draws
    moves as fast as it is shown.

    Args:
        entry: The entry point.
        options: As a person wrote them.
        fps: Rate of the time steps where `options` do not say it.

    Raises:
        SourceError: It cannot be imported, or does not understand its options.
    """

    is_live = False

    def __init__(self, entry: EntryPoint, options: str, fps: float) -> None:
        try:
            factory = entry.load()
        except (ImportError, AttributeError) as error:
            raise SourceError(f"the source {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
        said = re.search(r"(?:^|,)\s*fps\s*=\s*([\d.]+)", options)
        if said is None:
            options = ",".join(filter(None, (options, f"fps={fps:g}")))
        try:
            self._source: Any = factory(options)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise SourceError(f"{entry.name}: {error}") from error
        period_ns = round(1e9 / (float(said[1]) if said is not None else fps))
        self.cameras = tuple(_camera(camera, period_ns) for camera in self._source.cameras)

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """As the plugin gives them."""
        for _, images in self._source.frames():
            yield images


def _camera(camera: Any, period_ns: int) -> Camera:  # noqa: ANN401 - another package's type, described above
    x, y, z = camera.position
    return Camera(
        id=camera.id,
        width=camera.width,
        height=camera.height,
        period_ns=period_ns,
        intrinsics=Intrinsics(camera.fx, camera.fy, camera.cx, camera.cy),
        mounting=Mounting(x, y, z, camera.yaw, camera.pitch, camera.roll),
    )
