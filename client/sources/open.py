"""Opens what a person names on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from client.errors import SourceError
from client.frames import Camera, Image

PLUGINS = "monocoque.frame_sources"
"""Entry points of this group are sources by name: `factory(spec)` gives an object with `cameras` and `frames()`."""


class Source(Protocol):
    """Frames of some cameras, a time step after the other.

    Attributes:
        cameras: Whose frames they are; `period_ns` is their own rate, 0 where it is not known.
        is_live: Whether frames come at the cameras' own pace, so that waiting between them would lose time.
    """

    cameras: tuple[Camera, ...]
    is_live: bool

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """One time step each: (H, W, 3) RGB by camera id."""
        ...


DEFAULT_FPS = 10.0
"""Rate of sources that have none of their own, such as folders and renderers."""


def open_source(spec: str, fps: float = DEFAULT_FPS) -> Source:
    """The source that a person means by `spec`.

    Args:
        spec: `v4l2:/dev/video0`, `gst:PIPELINE`, the name of an installed source such as `surround` or
            `surround:seed=7`, a folder of images, a video file, or a folder of video files, one for each camera. A
            name wins over a folder of that name, which is then `./surround`: what a command means must not depend on
            where it is typed.
        fps: Time steps per second of a source that can choose.

    Raises:
        SourceError: There is no such source, or it cannot be opened.
    """
    from client.sources.folder import FolderSource  # noqa: PLC0415 - only the one that is asked for
    from client.sources.gstreamer import GStreamerSource  # noqa: PLC0415
    from client.sources.plugin import PluginSource  # noqa: PLC0415
    from client.sources.video import DeviceSource, VideoSource, videos  # noqa: PLC0415

    kind, _, rest = spec.partition(":")
    if kind == "v4l2":
        return DeviceSource(rest)
    if kind == "gst":
        return GStreamerSource(rest)
    plugins = {entry.name: entry for entry in entry_points(group=PLUGINS)}
    if kind in plugins:
        return PluginSource(plugins[kind], rest, fps)
    path = Path(spec)
    if path.is_dir():
        return VideoSource(found) if (found := videos(path)) else FolderSource(path)
    if path.is_file():
        return VideoSource([path])
    known = [*(f"{name}[:OPTIONS]" for name in plugins), "v4l2:/dev/videoN", "gst:PIPELINE"]
    raise SourceError(
        f"{spec!r} is no file, no folder, and names no source"
        f"\n  → a folder of images, a video file, or one of: {', '.join(known)}"
    )
