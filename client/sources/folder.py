"""Images in a folder; its subfolders, where it has any, are cameras."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from client.errors import SourceError
from client.frames import Camera, Image, Intrinsics, Mounting

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
"""Files that are taken for images."""

RIG_FILE = "cameras.json"
"""Optional, in the folder: `{"CAMERA": {"intrinsics": {"fx_px": ...}, "mounting": {"x_m": ...}}}`."""


class FolderSource:
    """The images of each camera in the order of their names; time step *i* is every camera's *i*-th image.

    Args:
        root: The folder.

    Raises:
        SourceError: It has no images, or one of them cannot be read.
    """

    is_live = False

    def __init__(self, root: Path) -> None:
        folders = [child for child in sorted(root.iterdir()) if child.is_dir() and _images(child)] or [root]
        self._files = {folder.resolve().name or "camera": _images(folder) for folder in folders}
        if not any(self._files.values()):
            raise SourceError(f"no images in {root} or its subfolders\n  → files ending in {', '.join(SUFFIXES)}")
        rig = _rig(root / RIG_FILE)
        self.cameras = tuple(_camera(name, files[0], rig.get(name, {})) for name, files in self._files.items())

    def frames(self) -> Iterator[Mapping[str, Image]]:
        """One image of each camera at a time, until the longest has ended."""
        for step in range(max(map(len, self._files.values()))):
            yield {
                camera.id: _read(files[step], (camera.width, camera.height))
                for camera, files in zip(self.cameras, self._files.values(), strict=True)
                if step < len(files)
            }


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _camera(name: str, first: Path, rig: Mapping[str, Any]) -> Camera:
    height, width = _read(first, None).shape[:2]
    try:
        intrinsics = Intrinsics(**rig["intrinsics"]) if "intrinsics" in rig else None
        mounting = Mounting(**rig["mounting"]) if "mounting" in rig else None
    except TypeError as error:
        raise SourceError(f"{RIG_FILE}, camera {name}: {error}") from error
    return Camera(name, width, height, intrinsics=intrinsics, mounting=mounting)


def _rig(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        rig = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    if not isinstance(rig, dict):
        raise SourceError(f'{path} is not {{"CAMERA": {{"intrinsics": ..., "mounting": ...}}}}')
    return rig


def _read(path: Path, size: tuple[int, int] | None) -> Image:
    """An image as (H, W, 3) RGB, and of this (width, height) where one is given."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if bgr is None:
        raise SourceError(f"{path} ({len(data)} bytes) is not an image that can be decoded; is it cut off?")
    image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    if size is not None and image.shape[:2] != size[::-1]:
        raise SourceError(
            f"{path} is {image.shape[1]}x{image.shape[0]}, the first image of its camera is {size[0]}x{size[1]}"
            "\n  → one size per camera; put other sizes into a subfolder of their own"
        )
    return image
