"""What the server granted bounds what may be sent."""

from __future__ import annotations

from client.engine import Opened
from client.errors import FrameInvalid
from client.frames import Camera


def check_size(camera: Camera, opened: Opened) -> None:
    """Raise `FrameInvalid` for a camera whose frames are larger than the server takes."""
    wide = opened.max_width and camera.width > opened.max_width
    high = opened.max_height and camera.height > opened.max_height
    if wide or high:
        raise FrameInvalid(
            f"camera {camera.id} sends {camera.width}x{camera.height}, "
            f"the server takes up to {opened.max_width}x{opened.max_height}"
            f"\n  → start it with --max-frame {camera.width}x{camera.height}, or send smaller frames"
        )


def check_bytes(camera: Camera, frame_bytes: int, opened: Opened) -> None:
    """Raise `FrameInvalid` for a frame of more bytes than the server takes."""
    if opened.max_frame_bytes and frame_bytes > opened.max_frame_bytes:
        raise FrameInvalid(
            f"frame of camera {camera.id} has {frame_bytes} bytes, the server takes {opened.max_frame_bytes}"
            "\n  → start it with a larger --max-frame WIDTHxHEIGHT, or send jpeg"
        )
