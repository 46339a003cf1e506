"""What decoders produce: samples that still have the frame's geometry, and know how to become a network input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from engine.area import write
from engine.manifest import Preprocessing
from engine.preprocess import Placement, fill_border, resize
from server.decode.buffers import scratch
from server.decode.color import Color, change_range, convert_channels, yuv_to_rgb

Array = npt.NDArray[np.uint8]


class Samples(Protocol):
    """The samples of one frame, at its resolution or a lower one."""

    @property
    def nbytes(self) -> int:
        """How much memory they take."""

    def write(self, placement: Placement, spec: Preprocessing, window: Array) -> None:
        """Write what is used of the frame.

        Args:
            placement: Which part is used.
            spec: The bundle's preprocessing.
            window: `(h, w, 3)`, or `(h, w)` for grey: where the frame lies in the network input.
        """


@dataclass(frozen=True)
class Interleaved:
    """Colour samples side by side, or grey ones.

    Attributes:
        image: `(H, W, 3)`, or `(H, W)` for grey.
        order: Of its channels.
        limited: Whether they are in limited range.
    """

    image: Array
    order: Color
    limited: bool = False

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return self.image.nbytes

    def write(self, placement: Placement, spec: Preprocessing, window: Array) -> None:
        """Resize, then bring channels into order, where there are fewer pixels."""
        part = placement.part(self.image)
        if self.order == spec.color:
            resize(part, window, spec.kernel)
        elif part.shape[:2] == window.shape[:2]:
            convert_channels(part, self.order, spec.color, window)
        else:
            resized = scratch("resized", *window.shape[:2], *part.shape[2:])
            resize(part, resized, spec.kernel)
            convert_channels(resized, self.order, spec.color, window)
        change_range(window, self.limited, spec.value_range)


@dataclass(frozen=True)
class Yuv:
    """Luma, and chroma at the same or a lower resolution.

    Attributes:
        luma: `(H, W)`.
        chroma: One plane of interleaved U and V `(h, w, 2)`, or a plane of each `(h, w)`.
        matrix: `ColorMatrix`.
        limited: Whether they are in limited range.
    """

    luma: Array
    chroma: Sequence[Array]
    matrix: int
    limited: bool

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return self.luma.nbytes + sum(plane.nbytes for plane in self.chroma)

    def write(self, placement: Placement, spec: Preprocessing, window: Array) -> None:
        """Resize each plane, then convert: the conversion is affine, so it may come after the averaging."""
        part = placement.part(self.luma)
        if spec.color == "gray":
            resize(part, window, spec.kernel)
            change_range(window, self.limited, spec.value_range)
            return
        size = window.shape[:2]
        # At the frame's own size each chroma sample serves the pixels it was taken from, as in cameras' converters.
        kernel = "nearest" if part.shape == size else spec.kernel
        planes = [resized("luma", part, size, kernel)]
        for number, plane in enumerate(self.chroma):
            planes.append(resized(f"chroma{number}", placement.part(plane), size, kernel))
        yuv = scratch("yuv", *size, 3)
        cv2.mixChannels(planes, [yuv], [0, 0, 1, 1, 2, 2])
        weights = yuv_to_rgb(self.matrix, self.limited, spec.value_range)
        write(window, cv2.transform(yuv, weights if spec.color == "rgb" else weights[::-1], dst=window))


def resized(name: str, plane: Array, size: tuple[int, int], kernel: str) -> Array:
    """A plane at another size `(H, W)`, in this thread's scratch memory of that name; as it is where it fits."""
    if plane.shape[:2] == size:
        return plane
    out = scratch(name, *size, *plane.shape[2:])
    resize(plane, out, kernel)
    return out


@dataclass
class Decoded:
    """A frame that is decoded as far as it can be before its place in the network input is known.

    Attributes:
        samples: Its samples; they may be views into the bytes it came in.
        placement: Where it will lie in the network input.
        spec: The bundle's preprocessing.
        damage: What is wrong with its samples; empty where nothing is. Results from it are not valid.
        release: Called when the samples are not needed any more.
    """

    samples: Samples
    placement: Placement
    spec: Preprocessing
    damage: str = ""
    release: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        """How much memory its samples take."""
        return self.samples.nbytes

    def write_into(self, out: npt.NDArray[np.uint8]) -> Placement:
        """Write it into its place of the batched network input, once; its bytes are not needed after that.

        Args:
            out: `(height, width, C)`, contiguous: one entry of the input batch. Every byte is written.
        """
        fill_border(out, self.placement, self.spec)
        window = self.placement.window(out)
        self.samples.write(self.placement, self.spec, window[..., 0] if self.spec.color == "gray" else window)
        self.release()
        return self.placement
