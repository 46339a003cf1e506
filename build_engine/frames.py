"""Calibration data: camera frames or arrays from a folder, as the network will see them."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from build_engine.errors import BuildError
from build_engine.given import check_folder
from build_engine.graph import Tensors
from build_engine.progress import Progress
from engine.manifest import FreeDimension, Preprocessing
from engine.preprocess import resize_into
from engine.tensors import TensorSpec

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
ARRAYS = frozenset({".npz", ".npy"})
FEW_FRAMES = 32
"""Below this many, ranges depend on luck: a note says so."""
NAMED = 10
"""Most skipped files that are named."""
UNREADABLE_SHARE = 0.05
"""Share of unreadable files that is skipped; more means that the folder is not what was meant."""


@dataclass(frozen=True)
class Samples:
    """Inputs of the model, one entry of the batch each.

    Attributes:
        inputs: Arrays by input name, first dimension 1 where it is the batch.
        names: File of each.
        skipped: Files that could not be read.
    """

    inputs: tuple[Tensors, ...]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Digest over every value, in order."""
        total = hashlib.sha256()
        for entry in self.inputs:
            for name, array in entry.items():
                total.update(f"{name}:{array.dtype}:{array.shape}\n".encode())
                total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def spread(self, count: int) -> tuple[Tensors, ...]:
        """At most `count` of them, evenly spaced: neighbours in a folder are neighbours on the road."""
        if len(self.inputs) <= count:
            return self.inputs
        return tuple(self.inputs[index] for index in np.linspace(0, len(self.inputs) - 1, count).round().astype(int))


def read_samples(
    folder: Path,
    inputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    count: int,
    progress: Progress,
    dimensions: Mapping[str, FreeDimension] = MappingProxyType({}),
) -> Samples:
    """Read up to `count` samples, evenly spaced over the sorted files.

    Args:
        folder: Images for a camera model, resized as the server will; else `.npz` files with one array per input, or
            `.npy` for a model of one input. Arrays may hold many entries, batch first.
        inputs: What the engine takes.
        preprocessing: How a frame becomes the input; None for a model of tensors.
        count: Most samples to read.
        progress: Told about every file.
        dimensions: Sizes of the free dimensions besides the batch, by name.

    Raises:
        BuildError: The folder is missing, empty or of the wrong kind, too much of it is unreadable, or an array does
            not fit its input.
    """
    files = _files(folder, IMAGES if preprocessing else ARRAYS, camera=preprocessing is not None)
    chosen = [files[index] for index in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    samples: list[Tensors] = []
    names: list[str] = []
    skipped: list[str] = []
    with progress.step("Reading calibration data", len(chosen)) as advance:
        for file in chosen:
            entries = _frame(file, preprocessing) if preprocessing else _arrays(file, inputs, dimensions)
            if entries is None:
                skipped.append(file.name)
            else:
                samples += entries
                names += [file.name] * len(entries)
            advance()
    if len(skipped) > max(1, UNREADABLE_SHARE * len(chosen)) or not samples:
        raise BuildError(
            f"{len(skipped)} of {len(chosen)} files in {folder} cannot be read: {', '.join(skipped[:5])}",
            remedy="remove them, or give another folder to --calibration-data",
        )
    if skipped:
        more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        progress.note(
            f"{len(skipped)} of {len(chosen)} calibration files cannot be read and were skipped: "
            f"{', '.join(skipped[:NAMED])}{more}"
        )
    if len(samples) < FEW_FRAMES:
        progress.note(f"only {len(samples)} calibration samples; {FEW_FRAMES} or more from varied scenes are advised")
    if len(samples) > 1 and all(_same(samples[0], other) for other in samples[1:]):
        progress.note(f"all {len(samples)} calibration samples are identical: ranges will fit that one scene only")
    flat = sum(all(array.min() == array.max() for array in entry.values() if array.size) for entry in samples)
    if flat:
        progress.note(
            f"{flat} of {len(samples)} calibration samples hold one value throughout, such as a black frame: they say "
            "nothing about the ranges of real ones"
        )
    return Samples(tuple(samples[:count]), tuple(names[:count]), tuple(skipped))


def _files(folder: Path, suffixes: frozenset[str], *, camera: bool) -> list[Path]:
    check_folder(folder)
    everything = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in everything if path.suffix.lower() in suffixes]
    if files:
        return files
    if not camera and any(path.suffix.lower() in IMAGES for path in everything):
        raise BuildError(
            f"{folder} holds images, but the model takes tensors: how pixels become its input is not known",
            remedy="say so with --mean, --std and --color, or give .npz files with one array per input",
        )
    raise BuildError(
        f"{folder} holds no {'image' if camera else '.npz or .npy file'}",
        remedy=f"give {FEW_FRAMES} to 500 frames as the camera sees them ({', '.join(sorted(suffixes))})",
    )


def _frame(file: Path, preprocessing: Preprocessing) -> list[Tensors] | None:
    gray = preprocessing.color == "gray"
    try:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    except cv2.error:  # more pixels than OpenCV takes
        return None
    if image is None:
        return None
    if preprocessing.color == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    out = np.empty((1, preprocessing.height, preprocessing.width, 1 if gray else 3), np.uint8)
    resize_into(np.asarray(image, np.uint8), preprocessing, out[0])
    return [{preprocessing.input: out}]


def _arrays(file: Path, inputs: Sequence[TensorSpec], dimensions: Mapping[str, FreeDimension]) -> list[Tensors] | None:
    try:
        content = np.load(file, allow_pickle=False)
        arrays: dict[str, npt.NDArray[Any]]
        if isinstance(content, np.ndarray):
            arrays = {inputs[0].name: content}
        else:
            with content:
                arrays = {name: content[name] for name in content}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if missing := [spec.name for spec in inputs if spec.name not in arrays]:
        raise BuildError(
            f"{file} has no array {', '.join(missing)}; it has {', '.join(arrays)}",
            remedy=f"np.savez({file.name!r}, {', '.join(f'{spec.name}=...' for spec in inputs)})",
        )
    counts = {arrays[spec.name].shape[0] for spec in inputs if spec.batched and arrays[spec.name].ndim}
    for spec in inputs:
        array = arrays[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(wanted, str) or wanted == size for wanted, size in zip(spec.shape, array.shape, strict=True)
        )
        if str(array.dtype) != spec.dtype or not fits or len(counts) > 1:
            raise BuildError(
                f"{file}: {spec.name} is {array.dtype}{list(array.shape)}, wanted is {spec.dtype}{list(spec.shape)}",
                remedy="write the arrays as the model takes them",
            )
        for name, size in zip(spec.shape, array.shape, strict=True):
            if isinstance(name, str) and name in dimensions and not dimensions[name].holds(size):
                raise BuildError(
                    f"{file}: {spec.name} has {size} of dimension {name!r}, served are {dimensions[name].smallest} to "
                    f"{dimensions[name].largest}",
                    remedy="cut or pad the array, or remove the file; or give that size a place in --dimension "
                    f"{name}={dimensions[name]}",
                )
        if not array.size or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            what = "holds a NaN or an infinity" if array.size else "holds nothing"
            raise BuildError(f"{file}: {spec.name} {what}", remedy="write what the network sees, or remove the file")
    entries = counts.pop() if counts else 1
    return [
        {spec.name: arrays[spec.name][index : index + 1] if spec.batched else arrays[spec.name] for spec in inputs}
        for index in range(entries)
    ]


def _same(one: Tensors, other: Tensors) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)
