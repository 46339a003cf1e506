"""Pictures in every encoding, made without our client."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engine.manifest import Preprocessing
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import decode

Array = npt.NDArray[np.uint8]


def picture(width: int, height: int, noise: float = 3.0, seed: int = 0) -> Array:
    """A smooth RGB picture with some noise, like a camera's."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 226, (max(2, height // 16), max(2, width // 16), 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(smooth + random.normal(0, noise, smooth.shape)), 0, 255).astype(np.uint8)


def header(encoding: int, width: int, height: int, **fields: Any) -> pb.FrameHeader:
    return pb.FrameHeader(encoding=encoding, width=width, height=height, **fields)  # type: ignore[arg-type]


def spec(width: int, height: int, **fields: Any) -> Preprocessing:
    return Preprocessing(**({"input": "images", "color": "rgb", "width": width, "height": height} | fields))


def network_input(frame: pb.FrameHeader, data: bytes | memoryview, wanted: Preprocessing) -> Array:
    """What the engine is given for a frame."""
    out = np.full((wanted.height, wanted.width, wanted.channels), 77, np.uint8)
    decode(frame, memoryview(data), wanted).write_into(out)
    return out


def jpeg(image: Array, *parameters: int) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(parameters))[1].tobytes()


def png(image: Array) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def yuv_planes(image: Array) -> tuple[Array, Array, Array]:
    """BT.601, limited range: luma (H, W), U and V (H / 2, W / 2)."""
    height, width = image.shape[:2]
    planar = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    return planar[:height], chroma[0], chroma[1]


def nv12(image: Array) -> bytes:
    luma, u, v = yuv_planes(image)
    return luma.tobytes() + np.stack([u, v], axis=-1).tobytes()


def yuyv(image: Array) -> bytes:
    luma, u, v = yuv_planes(image)
    rows = np.arange(len(luma)) // 2
    return np.stack([luma[:, ::2], u[rows], luma[:, 1::2], v[rows]], axis=-1).tobytes()


def mosaic(image: Array) -> Array:
    out = np.empty(image.shape[:2], np.uint8)
    for row in (0, 1):
        for column in (0, 1):
            out[row::2, column::2] = image[row::2, column::2, row + column]
    return out


def words(samples: Array, white: int) -> npt.NDArray[np.uint16]:
    return np.rint(samples * (white / 255)).astype("<u2")


def raw12(samples: npt.NDArray[np.uint16]) -> bytes:
    """MIPI CSI-2 RAW12, one pixel pair after the other."""
    out = bytearray()
    for first, second in samples.reshape(-1, 2).tolist():
        out += bytes([first >> 4, second >> 4, first & 15 | (second & 15) << 4])
    return bytes(out)


def gray(image: Array) -> Array:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def in_encoding(encoding: int, image: Array) -> bytes:
    """An RGB picture with even sides in any raw encoding or file format."""
    if encoding == pb.ENCODING_JPEG:
        return jpeg(image, cv2.IMWRITE_JPEG_QUALITY, 95)
    if encoding == pb.ENCODING_PNG:
        return png(image)
    if encoding == pb.ENCODING_RGB8:
        return image.tobytes()
    if encoding == pb.ENCODING_BGR8:
        return image[..., ::-1].tobytes()
    if encoding == pb.ENCODING_GRAY8:
        return gray(image).tobytes()
    if encoding == pb.ENCODING_GRAY16:
        return words(gray(image), 65535).tobytes()
    if encoding == pb.ENCODING_NV12:
        return nv12(image)
    if encoding == pb.ENCODING_YUYV:
        return yuyv(image)
    if encoding == pb.ENCODING_BAYER_RGGB8:
        return mosaic(image).tobytes()
    if encoding == pb.ENCODING_BAYER_RGGB12P:
        return raw12(words(mosaic(image), 4095))
    return words(mosaic(image), 4095 if encoding == pb.ENCODING_BAYER_RGGB12 else 65535).tobytes()
