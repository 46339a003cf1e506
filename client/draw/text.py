"""Anti-aliased text on images."""

from __future__ import annotations

from typing import Any

import cv2

from client.draw.palette import Color
from client.frames import Image

# OpenCV 5 has a proportional font built in; OpenCV 4 has only line-drawn ones.
_FACE: Any = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
_HERSHEY_CAP_PX = 22.0
_TO_ASCII = str.maketrans({"·": "-", "–": "-", "→": ">", "≥": ">"})


def text_width(text: str, size_px: int, weight: int = 400) -> int:
    """Pixels from the first character's left edge to the last one's right edge."""
    if _FACE is not None:
        box = cv2.getTextSize((0, 0), text, (0, 0), _FACE, size_px, weight)
        return int(box[0] + box[2])
    (width, _), _ = cv2.getTextSize(
        text.translate(_TO_ASCII), cv2.FONT_HERSHEY_DUPLEX, size_px * 0.72 / _HERSHEY_CAP_PX, 1
    )
    return int(width)


def draw_text(image: Image, text: str, left: int, baseline: int, color: Color, size_px: int, weight: int = 400) -> None:
    """Write text into an image.

    Args:
        image: (H, W, 3) RGB, changed in place.
        text: One line.
        left: Column of its left edge.
        baseline: Row of its baseline.
        color: RGB.
        size_px: Height of the font; capitals are 0.7 of it.
        weight: 100 (thin) to 800 (bold).
    """
    if _FACE is not None:
        cv2.putText(image, text, (left, baseline), color, _FACE, size_px, weight)
        return
    scale, thickness = size_px * 0.72 / _HERSHEY_CAP_PX, 2 if weight >= 600 else 1
    text = text.translate(_TO_ASCII)
    cv2.putText(image, text, (left, baseline), cv2.FONT_HERSHEY_DUPLEX, scale, color, thickness, cv2.LINE_AA)
