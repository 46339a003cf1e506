"""Images to the bytes of an encoding."""

from __future__ import annotations

import cv2
import numpy as np

from client.encode_video import VideoEncoder
from client.errors import FrameInvalid
from client.frames import ENCODINGS, Encoding, Image

_EVEN_SIDES = ("nv12", "bayer_rggb8", "bayer_rggb12", "bayer_rggb12p", "bayer_rggb16")


def encode(image: Image, encoding: Encoding, quality: int = 90) -> Image:
    """Encode an image.

    Args:
        image: (H, W, 3) RGB, `uint8`.
        encoding: Any; `nv12` and the mosaics need even sizes, `yuyv` an even width. YUV is written in BT.601, limited
            range. For `h264` and `h265` it is one keyframe; `VideoEncoder` writes a stream of them.
        quality: Of JPEG, 1 to 100.

    Returns:
        (N,) for `jpeg`, `png`, `h264` and `h265`, else bytes shaped as `client.geometry.frame_shape` says.

    Raises:
        FrameInvalid: It is no such image, or PyAV is missing.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise FrameInvalid(f"an image is (H, W, 3) uint8, this is {image.shape} {image.dtype}")
    if encoding not in ENCODINGS:
        raise FrameInvalid(f"encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")
    height, width = image.shape[:2]
    if height < 1 or width < 1:
        raise FrameInvalid(f"an image of {width}x{height} has no pixels")
    if (encoding == "yuyv" and width % 2) or (encoding in _EVEN_SIDES and (width % 2 or height % 2)):
        raise FrameInvalid(f"{encoding} needs even sizes, the image is {width}x{height}")
    if encoding == "rgb8":
        return image
    if encoding == "jpeg":
        return _file(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if encoding == "png":
        return _file(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if encoding in ("h264", "h265"):
        return VideoEncoder(encoding, width, height).encode(image)
    if encoding == "bgr8":
        return _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if encoding == "gray8":
        return _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    if encoding == "gray16":
        return _wide(_bytes(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), 65535)
    if encoding == "yuyv":
        return _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_YUY2))
    if encoding == "nv12":
        planar = _bytes(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420))
        chroma = planar[height:].reshape(2, -1)
        return np.concatenate([planar[:height], chroma.T.reshape(height // 2, width)])
    mosaic = _mosaic(image)
    if encoding == "bayer_rggb8":
        return mosaic
    wide = _wide(mosaic, 65535 if encoding == "bayer_rggb16" else 4095)
    return _packed(wide) if encoding == "bayer_rggb12p" else wide


def _mosaic(image: Image) -> Image:
    """What a sensor behind a colour filter of red, green over green, blue sees: (H, W)."""
    mosaic = _bytes(image[..., 1].copy())
    mosaic[::2, ::2] = image[::2, ::2, 0]
    mosaic[1::2, 1::2] = image[1::2, 1::2, 2]
    return mosaic


def _wide(samples: Image, white: int) -> Image:
    """Samples (H, W) as the bytes of little-endian 16-bit words (H, W, 2), 255 as `white`."""
    scaled = np.asarray(np.rint(samples * (white / 255)), "<u2")
    return _bytes(scaled[..., None].view(np.uint8))


def _packed(words: Image) -> Image:
    """Two words of 12 bits in three bytes (MIPI CSI-2 RAW12): (H, W, 2) to (H, W * 3 / 2)."""
    samples = words.view("<u2")[..., 0]
    first, second = samples[:, ::2], samples[:, 1::2]
    low = (first & 15) | (second & 15) << 4
    return _bytes(np.stack([first >> 4, second >> 4, low], axis=-1).reshape(len(samples), -1))


def _file(suffix: str, image: Image, parameters: list[int]) -> Image:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise FrameInvalid(f"an image of shape {image.shape} cannot be written as {suffix}")
    return _bytes(data)


def _bytes(array: object) -> Image:
    return np.asarray(array, dtype=np.uint8)
