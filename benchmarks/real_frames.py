"""What models of packages look at when they are quantized here: photographs, lines of text, pages, streets.

Agreement with FP32 means something only where a model sees what it was made for. The photographs are those that
scikit-image ships in its wheel (public domain or free to use); text is drawn with the fonts that matplotlib ships.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from build_engine.errors import BuildError

Image = npt.NDArray[np.uint8]
"""`(H, W, 3)` RGB."""

PHOTOGRAPHS = "scikit-image==0.26.0"
PICTURES = ("astronaut", "chelsea", "astronaut", "coffee", "astronaut", "motorcycle_left", "astronaut", "rocket")
"""A person in every second frame: that is what most detectors know."""
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold", "DejaVuSerif-Bold", "STIXGeneral", "cmr10")
WORDS = (
    *("STOP", "Main Street", "EXIT 7B", "OPEN 24h", "Taxi", "NO PARKING", "B-UH 3107", "Speed limit 50", "Harbour"),
    *("invoice 20931", "total 184.50", "the quick brown fox", "Platform 9", "ticket office", "+49 30 5550 142"),
    *("Departure 17:45", "Gate C12", "fragile", "keep dry", "Made in 2026", "user@example.org", "Reference"),
)


def download(package: str, folder: Path) -> zipfile.ZipFile:
    """A package's wheel, downloaded and not installed.

    Raises:
        BuildError: It cannot be had.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    name = package.partition("==")[0].replace("-", "_")
    if not list(folder.glob(f"{name}-*.whl")):
        done = subprocess.run([*command, package], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{package} cannot be had: {done.stderr.strip()[-200:]}", remedy="check the network")
    return zipfile.ZipFile(next(folder.glob(f"{name}-*.whl")))


def photographs(folder: Path, count: int) -> list[Image]:
    """Crops of photographs: other places, sizes, sides and light in each.

    Args:
        folder: Where wheels are downloaded to.
        count: How many.
    """
    with download(PHOTOGRAPHS, folder) as wheel:
        found = {name: _picture(wheel, name) for name in dict.fromkeys(PICTURES)}
    draw = np.random.default_rng(0)
    return [_crop(found[PICTURES[number % len(PICTURES)]], draw) for number in range(count)]


def lines(backgrounds: Sequence[Image]) -> list[Image]:
    """One line of text on a piece of each picture, as a text detector cuts them out."""
    draw = np.random.default_rng(1)
    return [_line(picture, WORDS[number % len(WORDS)], draw) for number, picture in enumerate(backgrounds)]


def turned(backgrounds: Sequence[Image]) -> list[Image]:
    """Lines of text, every second one upside down."""
    return [line[::-1, ::-1] if number % 2 else line for number, line in enumerate(lines(backgrounds))]


def pages(backgrounds: Sequence[Image]) -> list[Image]:
    """Several pieces of text of several sizes on each picture; every third is a sheet of paper."""
    draw = np.random.default_rng(2)
    return [_page(picture, number % 3 == 0, draw) for number, picture in enumerate(backgrounds)]


def characters(backgrounds: Sequence[Image]) -> list[Image]:
    """A few single characters on each picture, turned, as captchas show them."""
    draw = np.random.default_rng(3)
    return [_characters(picture, draw) for picture in backgrounds]


def _picture(wheel: zipfile.ZipFile, name: str) -> Image:
    file = next(one for one in wheel.namelist() if one.startswith(f"skimage/data/{name}."))
    image: Image = np.asarray(Pillow.open(io.BytesIO(wheel.read(file))).convert("RGB"))
    return image


def _crop(picture: Image, draw: np.random.Generator) -> Image:
    height, width = picture.shape[:2]
    share = draw.uniform(0.6, 1.0)
    rows, columns = int(height * share), int(width * share)
    y, x = draw.integers(0, height - rows + 1), draw.integers(0, width - columns + 1)
    part = picture[y : y + rows, x : x + columns]
    part = part[:, ::-1] if draw.random() < 0.5 else part
    bright = part.astype(np.float32) * draw.uniform(0.6, 1.2) + draw.uniform(-15, 25)
    image: Image = np.clip(bright, 0, 255).astype(np.uint8)
    return image


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def _ink(draw: np.random.Generator, dark: bool) -> tuple[int, int, int]:
    low, high = (0, 70) if dark else (190, 256)
    red, green, blue = (int(value) for value in draw.integers(low, high, 3))
    return red, green, blue


def _line(picture: Image, word: str, draw: np.random.Generator) -> Image:
    font = _font(str(draw.choice(FONTS)), int(draw.integers(28, 40)))
    left, top, right, bottom = font.getbbox(word)
    width, height = int(right - left) + int(draw.integers(8, 40)), int(bottom - top) + int(draw.integers(6, 16))
    dark = bool(draw.random() < 0.5)
    ground = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    sheet = Pillow.fromarray((0.25 * ground + 0.75 * np.array(_ink(draw, not dark))).astype(np.uint8))
    ImageDraw.Draw(sheet).text((4 - left, 3 - top), word, _ink(draw, dark), font)
    image: Image = np.asarray(sheet)
    return image


def _page(picture: Image, paper: bool, draw: np.random.Generator) -> Image:
    ground = cv2.resize(picture, (640, 384), interpolation=cv2.INTER_AREA)
    sheet = Pillow.fromarray(np.full_like(ground, int(draw.integers(215, 250))) if paper else np.asarray(ground))
    pen = ImageDraw.Draw(sheet)
    y = int(draw.integers(8, 30))
    while y < 350:
        font = _font(str(draw.choice(FONTS)), int(draw.integers(14, 30 if paper else 48)))
        words = " ".join(str(word) for word in draw.choice(WORDS, 3 if paper else 1))
        pen.text((int(draw.integers(10, 40 if paper else 300)), y), words, _ink(draw, paper or y % 2 == 0), font)
        y += int(font.size * draw.uniform(1.2, 1.6 if paper else 3.5))
    image: Image = np.asarray(sheet)
    return image


def _characters(picture: Image, draw: np.random.Generator) -> Image:
    sheet = Pillow.fromarray(cv2.resize(picture, (416, 416), interpolation=cv2.INTER_AREA))
    for index in range(int(draw.integers(3, 7))):
        size = int(draw.integers(50, 90))
        tile = Pillow.new("RGBA", (size + 20, size + 20))
        character = str(draw.choice(list("ABCDEFGHJKMNPRSTUVWXYZ23456789")))
        font = _font(str(draw.choice(FONTS)), size)
        ImageDraw.Draw(tile).text((10, 0), character, (*_ink(draw, bool(index % 2)), 255), font)
        tile = tile.rotate(float(draw.uniform(-35, 35)), expand=True)
        place = int(draw.integers(0, 300)), int(draw.integers(0, 300))
        sheet.paste(tile, place, tile)
    image: Image = np.asarray(sheet)
    return image
