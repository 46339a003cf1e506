"""A tree of files as a directory or as one zip, read and written as a whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from engine.errors import BundleCorrupt, BundleInvalid, BundleNotFound
from engine.manifest import bundle_path

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
ZIP_SEAL = b"sha256:"
"""The archive's comment: this and the SHA-256 of every byte before the comment. A zip has bytes that no member's
checksum covers; the seal does."""
_SEAL_BYTES = len(ZIP_SEAL) + 64
_PIECE_BYTES = 256 << 10
"""Fits a core's cache, and is used again: what another core computes meanwhile keeps its own."""
_COPY_AGAIN = "copy the bundle again from where it was built, or build it again"
_BUILD = "build one: python -m build_engine build MODEL -o BUNDLE"


class Files(Protocol):
    """Files by their paths inside the bundle.

    Attributes:
        path: The directory or the archive.
        names: Every file.
    """

    path: Path
    names: frozenset[str]

    def read(self, name: str) -> bytes:
        """All bytes of one file.

        Raises:
            BundleCorrupt: It cannot be read; the message names it.
        """

    def digest(self, name: str) -> tuple[str, int]:
        """SHA-256 of one file in hexadecimal, and its bytes. It is never in memory as a whole.

        Raises:
            BundleCorrupt: It cannot be read; the message names it.
        """

    def check_container(self) -> None:
        """Check what holds the files, beyond their contents.

        Raises:
            BundleCorrupt: It is not as it was written.
        """


def open_files(path: Path, required: str) -> Files:
    """List what lies at a path.

    Args:
        path: A directory or a zip.
        required: The file without which it is no bundle.

    Raises:
        BundleNotFound: Nothing, or no bundle.
        BundleCorrupt: It holds something other than plain files, or the archive is damaged.
    """
    if not path.exists():
        raise BundleNotFound(f"no bundle at {path}", remedy=_BUILD)
    if path.is_dir() and not os.path.lexists(path / required):  # before anything else in it is judged
        raise BundleNotFound(f"{path} has no {required}, so it is no bundle", remedy=_BUILD)
    files: Files = Directory(path) if path.is_dir() else Archive(path)
    if required not in files.names:
        raise BundleNotFound(f"{path} has no {required}, so it is no bundle", remedy=_BUILD)
    return files


class Directory:
    """Plain files under a directory. Links are refused: what they point at could change on its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        names = set()
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                entry = Path(folder, name)
                relative = entry.relative_to(path).as_posix()
                mode = entry.lstat().st_mode
                if stat.S_ISREG(mode):
                    names.add(relative)
                elif not stat.S_ISDIR(mode):
                    raise BundleCorrupt(f"{path}: {relative} is neither a file nor a directory", remedy="remove it")
        self.names = frozenset(names)

    def read(self, name: str) -> bytes:
        """All bytes of one file."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BundleCorrupt(f"{self.path}: {name}: {error.strerror}", remedy=_COPY_AGAIN) from error

    def digest(self, name: str) -> tuple[str, int]:
        """SHA-256 of one file, and its bytes."""
        try:
            with (self.path / name).open("rb", buffering=0) as file:
                return _digest(file)
        except OSError as error:
            raise BundleCorrupt(f"{self.path}: {name}: {error.strerror}", remedy=_COPY_AGAIN) from error

    def check_container(self) -> None:
        """A directory has nothing but its files."""


def _digest(file: IO[bytes]) -> tuple[str, int]:
    digest, size_bytes = hashlib.sha256(), 0
    piece = memoryview(bytearray(_PIECE_BYTES))
    while count := file.readinto(piece):  # type: ignore[attr-defined] # every binary file has it
        digest.update(piece[:count])
        size_bytes += count
    return digest.hexdigest(), size_bytes


class Archive:
    """Members of a zip. They are never unpacked to disk, and stored without compression, so none can swell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, *_DAMAGE) as error:
            raise BundleNotFound(f"{path} is neither a directory nor a zip: {error}", remedy=_BUILD) from error
        for member in members:
            self._add(member)
        self.names = frozenset(self._members)

    def read(self, name: str) -> bytes:
        """All bytes of one member."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._members[name])
        except (zipfile.BadZipFile, *_DAMAGE) as error:
            raise BundleCorrupt(f"{self.path}: {name} cannot be unpacked: {error}", remedy=_COPY_AGAIN) from error

    def digest(self, name: str) -> tuple[str, int]:
        """SHA-256 of one member, and its bytes."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._members[name]) as file:
                return _digest(file)
        except (zipfile.BadZipFile, *_DAMAGE) as error:
            raise BundleCorrupt(f"{self.path}: {name} cannot be unpacked: {error}", remedy=_COPY_AGAIN) from error

    def check_container(self) -> None:
        """Compare the archive with the seal in its comment."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            left = self.path.stat().st_size - _SEAL_BYTES
            while left > 0 and (chunk := file.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
            comment = file.read()
        expected = ZIP_SEAL + digest.hexdigest().encode()
        if comment != expected:
            raise BundleCorrupt(
                f"{self.path.name}: the archive is not as it was written: it ends in {comment!r}, not in {expected!r}",
                remedy=f"{_COPY_AGAIN}; where you zipped it yourself, use the directory",
            )

    def _add(self, member: zipfile.ZipInfo) -> None:
        remedy = f"{_COPY_AGAIN}; where you zipped it yourself, use the directory"
        if member.compress_type != zipfile.ZIP_STORED:
            raise BundleCorrupt(f"{self.path}: {member.filename} is compressed", remedy=remedy)
        try:
            name = bundle_path(member.filename)
        except ValueError as error:
            raise BundleCorrupt(f"{self.path}: {error}", remedy="do not use it: this is how archives attack") from None
        if name in self._members:
            raise BundleCorrupt(f"{self.path}: {name} is there twice", remedy=remedy)
        self._members[name] = member


_DAMAGE = (EOFError, ValueError, OSError, RuntimeError, NotImplementedError, struct.error, zlib.error, OverflowError)
"""What `zipfile` raises, besides BadZipFile, on archives with wrong bytes."""


def write_files(path: Path, files: Mapping[str, bytes], mark: str) -> None:
    """Write a tree beside `path`, then move it there in one step, or leave everything as it was.

    Args:
        path: A directory, or one archive where the name ends in `.zip`. What lies there is replaced if it is a bundle.
        files: Bytes by path inside the tree.
        mark: The file by which an older bundle is known.

    Raises:
        BundleInvalid: Something that is no bundle lies at the path; it is left alone.
        OSError: The disk refused; nothing is left behind.
    """
    path = path.absolute()
    check_replaceable(path, mark)
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
            _write(target, data)
        _swap(fresh, path, Path(scratch) / "old")


def check_replaceable(path: Path, mark: str) -> None:
    """Check that a tree may be written to a path: nothing lies there, an empty directory, or an older bundle.

    Raises:
        BundleInvalid: Something else does.
    """
    if not path.exists():
        return
    if path.suffix == ".zip":
        replaceable = path.is_file() and _has_member(path, mark)
    else:
        replaceable = path.is_dir() and ((path / mark).is_file() or not any(path.iterdir()))
    if not replaceable:
        raise BundleInvalid(f"{path} exists and is no bundle", remedy="name another path for -o, or remove it")


def _has_member(path: Path, name: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return name in archive.namelist()
    except (zipfile.BadZipFile, *_DAMAGE):
        return False


def _swap(fresh: Path, path: Path, old: Path) -> None:
    """Put one directory in place of another; where that fails, put the other back."""
    if not path.exists():
        fresh.rename(path)
        return
    path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a loss of power leaves names without contents


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with path.open("w+b") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in sorted(files.items()):
                member = zipfile.ZipInfo(name, ZIP_TIME)
                member.external_attr = 0o644 << 16
                archive.writestr(member, data)
            archive.comment = ZIP_SEAL + b"0" * 64
        file.seek(0)
        sealed = file.read()[:-_SEAL_BYTES]
        file.seek(len(sealed))
        file.write(ZIP_SEAL + hashlib.sha256(sealed).hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())
