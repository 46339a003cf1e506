"""The engine bundle on disk: a directory, or the same tree in one zip."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BundleCorrupt, BundleInvalid, BundleNotFound
from engine.manifest import FileEntry, Manifest

MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
"""Covers every file, so `sha256sum -c SHA256SUMS` checks a bundle without monocoque."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Tensors = dict[str, npt.NDArray[Any]]
_File = Path | zipfile.ZipInfo


def sha256(data: bytes) -> str:
    """Digest of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class ReferenceCase:
    """One input with the output that the float graph gave for it at build time."""

    name: str
    inputs: Tensors
    outputs: Tensors


def pack_reference(case: ReferenceCase) -> bytes:
    """A reference case as the bytes of its `.npz` file."""
    buffer = io.BytesIO()
    arrays = {f"input:{name}": array for name, array in case.inputs.items()}
    arrays |= {f"output:{name}": array for name, array in case.outputs.items()}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


class Bundle:
    """A bundle that was opened and checked.

    Attributes:
        path: Where it lies.
        manifest: What it says about itself.
        digest: SHA-256 of `manifest.json`, and so of everything in the bundle but the report.
    """

    def __init__(self, path: Path, files: Mapping[str, _File], manifest: Manifest, digest: str) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest
        self._files = files

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and check every byte of it.

        Raises:
            BundleNotFound: There is no bundle at the path.
            BundleInvalid: The manifest breaks its schema.
            BundleCorrupt: A file is missing, was added or differs from its digest; the message names it.
        """
        path = Path(path)
        files = _list(path)
        sums = _check(path, files)
        data = _read(path, files[MANIFEST])
        manifest = Manifest.from_bytes(data, f"{path}/{MANIFEST}")
        for name, entry in manifest.files.items():
            if sums.get(name) != entry.sha256:
                raise BundleCorrupt(
                    f"{path}: {name} has SHA-256 {sums.get(name)} in {CHECKSUMS}, {entry.sha256} in {MANIFEST}",
                    remedy="build the bundle again",
                )
        return cls(path, files, manifest, sha256(data))

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, by its path inside the bundle."""
        return tuple(sorted(self._files))

    def read(self, name: str) -> bytes:
        """Bytes of one file, checked against the manifest once more, since a file may change under us.

        Raises:
            BundleInvalid: The bundle has no such file.
            BundleCorrupt: Its bytes changed since the bundle was opened.
        """
        if name not in self._files:
            raise BundleInvalid(f"{self.path} has no {name}", remedy="build the bundle again")
        data = _read(self.path, self._files[name])
        entry = self.manifest.files.get(name)
        if entry is not None and sha256(data) != entry.sha256:
            raise BundleCorrupt(
                f"{self.path}: {name} has SHA-256 {sha256(data)}, the manifest says {entry.sha256}",
                remedy="copy the bundle again from where it was built, or build it again",
            )
        return data

    def reference_cases(self) -> Iterator[ReferenceCase]:
        """The reference inputs with their outputs, one after the other."""
        for name in self.manifest.reference:
            with np.load(io.BytesIO(self.read(name)), allow_pickle=False) as arrays:
                yield ReferenceCase(
                    name,
                    {key.removeprefix("input:"): arrays[key] for key in arrays if key.startswith("input:")},
                    {key.removeprefix("output:"): arrays[key] for key in arrays if key.startswith("output:")},
                )


def _list(path: Path) -> dict[str, _File]:
    build = "build one: python -m build_engine build MODEL -o BUNDLE"
    if not path.exists():
        raise BundleNotFound(f"no bundle at {path}", remedy=build)
    files: dict[str, _File]
    if path.is_dir():
        files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except zipfile.BadZipFile:
            raise BundleNotFound(f"{path} is neither a directory nor a zip", remedy=build) from None
    if MANIFEST not in files:
        raise BundleNotFound(f"{path} has no {MANIFEST}, so it is no bundle", remedy=build)
    return files


def _check(path: Path, files: Mapping[str, _File]) -> dict[str, str]:
    sums = _checksums(path, files)
    remedy = "copy the bundle again from where it was built, or build it again"
    for name, expected in sums.items():
        if name not in files:
            raise BundleCorrupt(f"{path}: {name} is missing", remedy=remedy)
        if (actual := sha256(_read(path, files[name]))) != expected:
            raise BundleCorrupt(f"{path}: {name} has SHA-256 {actual}, recorded is {expected}", remedy=remedy)
    if extra := sorted(set(files) - set(sums) - {CHECKSUMS}):
        raise BundleCorrupt(f"{path}: {', '.join(extra)} is not part of the bundle", remedy="remove it")
    return sums


def _read(path: Path, file: _File) -> bytes:
    if isinstance(file, Path):
        return file.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(file)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise BundleCorrupt(
            f"{path}: {file.filename} cannot be unpacked: {error}", remedy="copy the bundle again"
        ) from None


def _checksums(path: Path, files: Mapping[str, _File]) -> dict[str, str]:
    if CHECKSUMS not in files:
        raise BundleCorrupt(f"{path}: {CHECKSUMS} is missing", remedy="build the bundle again")
    sums = {}
    for line in _read(path, files[CHECKSUMS]).decode(errors="replace").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator:
            raise BundleCorrupt(f"{path}: {CHECKSUMS} has a line {line[:80]!r}", remedy="build the bundle again")
        sums[name] = digest
    if MANIFEST not in sums:
        raise BundleCorrupt(f"{path}: {CHECKSUMS} does not name {MANIFEST}", remedy="build the bundle again")
    return sums


class BundleWriter:
    """Collects files and puts the whole bundle in place in one step, or nothing.

    The same files and manifest give the same bytes. A path that ends in `.zip` makes one archive.
    """

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def add(self, name: str, data: bytes) -> None:
        """Add one file, by its path inside the bundle."""
        self._files[name] = data

    def entries(self) -> dict[str, FileEntry]:
        """Digests of the files so far, for `Manifest.files`."""
        return {
            name: FileEntry(sha256=sha256(data), size_bytes=len(data)) for name, data in sorted(self._files.items())
        }

    def write(self, path: str | os.PathLike[str], manifest: Manifest, reports: Mapping[str, bytes]) -> None:
        """Write everything beside `path`, then move it there, replacing an older bundle.

        Args:
            path: Directory, or a name ending in `.zip`.
            manifest: Its `files` must be `entries()`.
            reports: `report.json` and `report.html`, which are checked but not part of the digest.

        Raises:
            BundleInvalid: Something that is no bundle lies at the path; it is left alone.
            OSError: The disk refused; nothing is left behind.
        """
        path = Path(path)
        occupied = path.exists() and not (path.is_dir() and ((path / MANIFEST).exists() or not any(path.iterdir())))
        if occupied and not (path.is_file() and path.suffix == ".zip"):
            raise BundleInvalid(f"{path} exists and is no bundle", remedy="name another path for -o, or remove it")
        files = {MANIFEST: manifest.to_bytes(), **self._files, **reports}
        files[CHECKSUMS] = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(files.items())).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            fresh = Path(scratch) / "new"
            if path.suffix == ".zip":
                _write_zip(fresh, files)
                fresh.replace(path)
                return
            for name, data in files.items():
                target = fresh / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            if path.exists():
                path.rename(Path(scratch) / "old")
            fresh.rename(path)
            shutil.rmtree(Path(scratch) / "old", ignore_errors=True)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), data, zipfile.ZIP_DEFLATED)
