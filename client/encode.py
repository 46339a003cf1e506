"""Images to the bytes of an encoding."""

from __future__ import annotations

import cv2
import numpy as np

from client.errors import FrameInvalid
from client.frames import Encoding, Image


def encode(image: Image, encoding: Encoding, quality: int = 90) -> Image:
    """Encode an image.

    Args:
        image: (H, W, 3) RGB, `uint8`.
        encoding: Any; `nv12` needs even sizes, `yuyv` an even width. Both are written in BT.601, limited range.
        quality: Of JPEG, 1 to 100.

    Returns:
        (N,) for `jpeg` and `png`, else shaped as `Frame.pixels` says.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise FrameInvalid(f"an image is (H, W, 3) uint8, this is {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    if encoding == "rgb8":
        return image
    if encoding == "jpeg":
        return _file(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if encoding == "png":
        return _file(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if encoding == "bgr8":
        return _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if encoding == "gray8":
        return _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    if width % 2 or (encoding == "nv12" and height % 2):
        raise FrameInvalid(f"{encoding} needs even sizes, the image is {width}x{height}")
    if encoding == "yuyv":
        return _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_YUY2))
    planar = _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420))
    chroma = planar[height:].reshape(2, -1)
    return np.concatenate([planar[:height], chroma.T.reshape(height // 2, width)])


def _file(suffix: str, image: Image, parameters: list[int]) -> Image:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise FrameInvalid(f"an image of shape {image.shape} cannot be written as {suffix}")
    return _bytes(data)


def _bytes(array: object) -> Image:
    return np.asarray(array, dtype=np.uint8)
