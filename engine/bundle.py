"""The engine bundle on disk: a directory, or the same tree in one zip."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.bundle_files import Files, open_files, write_files
from engine.errors import BundleCorrupt, BundleInvalid
from engine.manifest import FileEntry, Manifest, bundle_path

MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
"""Covers every file, so `sha256sum -c SHA256SUMS` checks a bundle without monocoque."""
REPORTS = frozenset({"report.html", "report.json"})
"""Checked, but no part of the digest: they hold measurements, which differ from one build to the next."""

Tensors = dict[str, npt.NDArray[Any]]
_COPY_AGAIN = "copy the bundle again from where it was built, or build it again"


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
    """A reference case as the bytes of its `.npz` file: the same arrays, the same bytes.

    Raises:
        ValueError: An array holds Python objects, which only unpickling could read.
    """
    buffer = io.BytesIO()
    arrays = {f"input:{name}": array for name, array in case.inputs.items()}
    arrays |= {f"output:{name}": array for name, array in case.outputs.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{case.name}: {name} holds Python objects")
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type] # numpy's stub has allow_pickle among the names
    return buffer.getvalue()


class Bundle:
    """A bundle that was opened and checked.

    Attributes:
        path: Where it lies.
        manifest: What it says about itself.
        digest: SHA-256 of `manifest.json`, and so of everything in the bundle but the report.
    """

    def __init__(self, path: Path, files: Files, manifest: Manifest, digest: str, sums: dict[str, str]) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest
        self._files = files
        self._sums = sums

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and check every byte of it.

        Raises:
            BundleNotFound: There is no bundle at the path.
            BundleInvalid: The manifest breaks its schema.
            BundleCorrupt: A file is missing, was added or differs from its digest; the message names it.
        """
        path = Path(path)
        files = open_files(path, MANIFEST)
        sums, sizes = _check(files)
        files.check_container()
        data = files.read(MANIFEST)
        manifest = Manifest.from_bytes(data, f"{path}/{MANIFEST}")
        _check_manifest(path, manifest, sums, sizes)
        return cls(path, files, manifest, sha256(data), sums)

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, by its path inside the bundle."""
        return tuple(sorted(self._files.names))

    def read(self, name: str) -> bytes:
        """Bytes of one file, checked once more, since a file may change under us.

        Raises:
            BundleInvalid: The bundle has no such file.
            BundleCorrupt: Its bytes changed since the bundle was opened.
        """
        if name not in self._sums:
            raise BundleInvalid(f"{self.path} has no {name}", remedy="build the bundle again")
        data = self._files.read(name)
        if sha256(data) != self._sums[name]:
            raise BundleCorrupt(
                f"{self.path}: {name} has SHA-256 {sha256(data)}, recorded is {self._sums[name]}", remedy=_COPY_AGAIN
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


class BundleWriter:
    """Collects files and puts the whole bundle in place in one step, or nothing.

    The same files and manifest give the same bytes. A path that ends in `.zip` makes one archive.
    """

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def add(self, name: str, data: bytes) -> None:
        """Add one file, by its path inside the bundle.

        Raises:
            ValueError: The path leaves the bundle, or is taken.
        """
        bundle_path(name)
        if name in self._files or name in {MANIFEST, CHECKSUMS, *REPORTS}:
            raise ValueError(f"{name} is already in the bundle")
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
            ValueError: The manifest is of other files, or a report has another name.
            OSError: The disk refused; nothing is left behind.
        """
        if manifest.files != self.entries():
            raise ValueError("the manifest's files are not those that were added")
        if strange := sorted(set(reports) - REPORTS):
            raise ValueError(f"{', '.join(strange)}: reports are {', '.join(sorted(REPORTS))}")
        files = {MANIFEST: manifest.to_bytes(), **self._files, **reports}
        files[CHECKSUMS] = _render({name: sha256(data) for name, data in files.items()})
        write_files(Path(path), files, MANIFEST)


def _render(sums: dict[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()


def _check(files: Files) -> tuple[dict[str, str], dict[str, int]]:
    """Every file against the checksums; returns these, and the files' sizes."""
    sums = _checksums(files)
    sizes = {}
    for name, expected in sums.items():
        if name not in files.names:
            raise BundleCorrupt(f"{files.path}: {name}, which {CHECKSUMS} lists, is missing", remedy=_COPY_AGAIN)
        actual, sizes[name] = files.digest(name)
        if actual != expected:
            raise BundleCorrupt(
                f"{files.path}: {name} has SHA-256 {actual}, recorded is {expected}", remedy=_COPY_AGAIN
            )
    if extra := sorted(set(files.names) - set(sums) - {CHECKSUMS}):
        raise BundleCorrupt(f"{files.path}: {', '.join(extra)} is not part of the bundle", remedy="remove it")
    return sums, sizes


def _checksums(files: Files) -> dict[str, str]:
    if CHECKSUMS not in files.names:
        raise BundleCorrupt(f"{files.path}: {CHECKSUMS} is missing", remedy=_COPY_AGAIN)
    data = files.read(CHECKSUMS)
    lines = (line.partition("  ") for line in data.decode(errors="replace").split("\n") if line)
    sums = {name: digest for digest, _, name in lines}
    if _render(sums) != data:  # sorted, one line each, nothing else
        raise BundleCorrupt(f"{files.path}: {CHECKSUMS} is not as it was written", remedy=_COPY_AGAIN)
    if MANIFEST not in sums:
        raise BundleCorrupt(f"{files.path}: {CHECKSUMS} does not name {MANIFEST}", remedy=_COPY_AGAIN)
    return sums


def _check_manifest(path: Path, manifest: Manifest, sums: dict[str, str], sizes: dict[str, int]) -> None:
    """The checksums against the manifest, whose digest is the bundle's: it must name every file but the reports."""
    for name, entry in manifest.files.items():
        if sums.get(name) != entry.sha256:
            raise BundleCorrupt(
                f"{path}: {name} has SHA-256 {sums.get(name)} in {CHECKSUMS}, {entry.sha256} in {MANIFEST}",
                remedy=_COPY_AGAIN,
            )
        if sizes[name] != entry.size_bytes:
            raise BundleCorrupt(
                f"{path}: {name} has {sizes[name]} bytes, {MANIFEST} says {entry.size_bytes}", remedy=_COPY_AGAIN
            )
    if extra := sorted(set(sums) - set(manifest.files) - REPORTS - {MANIFEST}):
        raise BundleCorrupt(f"{path}: {MANIFEST} does not name {', '.join(extra)}", remedy=_COPY_AGAIN)
