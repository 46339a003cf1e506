"""Shared memory that clients named: read and written through a descriptor, never mapped.

A client that truncates a mapped file kills whoever reads the map (SIGBUS); `preadv` of such a file comes back short.
The names are a client's own words, so nothing but its own files of `/dev/shm` may be opened by them, and nothing that
it did not say itself comes back in an error (CVE-2025-23319, -23320 and -23334 show why).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.errors import LimitReached, NameTaken, RegionNotFound, RequestInvalid
from server.open_inference.caller import Caller
from server.open_inference.datatypes import make_truth_values

DIRECTORY = "/dev/shm"  # noqa: S108 - it is where shm_open(3) makes its files
KEY = re.compile(r"/[A-Za-z0-9_.-]{1,64}")
LONGEST_NAME = 256
MAX_REGIONS = 256
"""Of all callers together: each is a descriptor."""
_TMPFS_MAGIC = 0x01021994
_STATFS_BYTES = 512


@dataclass(frozen=True, eq=False)
class Region:
    """A stretch of a client's shared memory. Its descriptor is closed once nobody uses it any more.

    Attributes:
        name: What requests call it.
        key: Its file, as the client named it.
        offset: First byte.
        byte_size: Bytes.
        descriptor: The file.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int

    def check(self, offset: int, byte_size: int) -> None:
        """Check that a stretch of the region is inside of it.

        Raises:
            RequestInvalid: It is not.
        """
        if offset < 0 or byte_size < 0 or offset + byte_size > self.byte_size:
            raise RequestInvalid(
                f"bytes {offset} to {offset + byte_size} of shared memory region '{self.name}', which has "
                f"{self.byte_size}",
                remedy="correct shared_memory_offset and shared_memory_byte_size",
            )

    def read(self, offset: int, target: memoryview) -> None:
        """Fill a buffer.

        Raises:
            RequestInvalid: The file ends before.
        """
        filled = 0
        while filled < len(target):
            count = os.preadv(self.descriptor, [target[filled:]], self.offset + offset + filled)
            if count == 0:
                raise self._shortened(offset + filled)
            filled += count

    def write(self, offset: int, source: memoryview) -> None:
        """Write a buffer.

        Raises:
            RequestInvalid: The file ends before; nothing is written then.
        """
        if os.fstat(self.descriptor).st_size < self.offset + offset + len(source):  # a write would make it longer
            raise self._shortened(offset)
        written = 0
        while written < len(source):
            written += os.pwritev(self.descriptor, [source[written:]], self.offset + offset + written)

    def _shortened(self, offset: int) -> RequestInvalid:
        return RequestInvalid(
            f"shared memory region '{self.name}' has become too short for byte {offset}",
            remedy="leave its file as long as it was when it was registered",
        )


@dataclass(frozen=True)
class SharedInput:
    """An input that is read from shared memory straight to where the engine wants it, once its turn has come.

    Attributes:
        region: Where it lies.
        offset: First byte in the region.
        dtype: Element type.
        shape: Sizes, batch first where there is one.
    """

    region: Region
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def copy_into(self, target: memoryview) -> None:
        """Read it.

        Raises:
            RequestInvalid: The file was shortened.
        """
        self.region.read(self.offset, target)
        if self.dtype == bool:
            make_truth_values(target)


class Regions:
    """The regions of all callers. A caller sees, and may use, its own user's only."""

    def __init__(self) -> None:
        self._regions: dict[tuple[int, str], Region] = {}

    def register(self, user: int, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a client's shared memory usable by a name.

        Args:
            user: Whose it is.
            name: What requests will call it.
            key: Its name for shm_open(3).
            offset: First byte.
            byte_size: Bytes.

        Raises:
            RequestInvalid: The key is no name of shared memory, no such file of the user can be opened, or the file is
                too short.
            NameTaken: The user has such a region.
            LimitReached: There are too many.
        """
        if not 0 < len(name) <= LONGEST_NAME:
            raise RequestInvalid(
                f"a region's name has {len(name)} characters", remedy=f"use 1 to {LONGEST_NAME} characters"
            )
        if (user, name) in self._regions:
            raise NameTaken(f"shared memory region '{name}' is registered already", remedy="unregister it first")
        if len(self._regions) >= MAX_REGIONS:
            raise LimitReached(f"{MAX_REGIONS} shared memory regions are registered", remedy="unregister some")
        if not KEY.fullmatch(key) or ".." in key:
            raise RequestInvalid(
                f"key {key[:80]!r} is no name of shared memory",
                remedy="use '/' and 1 to 64 letters, digits, '_', '-' and single '.'",
            )
        descriptor = _open(user, key)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if byte_size == 0 or offset + byte_size > size_bytes:
                raise RequestInvalid(
                    f"region '{name}' is bytes {offset} to {offset + byte_size} of '{key}', which has {size_bytes}",
                    remedy="register bytes that are there, at least one",
                )
        except BaseException:
            os.close(descriptor)
            raise
        region = Region(name, key, offset, byte_size, descriptor)
        weakref.finalize(region, os.close, descriptor)
        self._regions[user, name] = region

    def unregister(self, user: int, name: str) -> None:
        """Forget a user's region, or all of them where the name is empty. Requests that use it now still may."""
        for region in list(self.of(user)):
            if name in ("", region.name):
                del self._regions[user, region.name]

    def of(self, user: int) -> Iterator[Region]:
        """The regions of a user."""
        return (region for (owner, _), region in self._regions.items() if owner == user)

    def find(self, user: int, name: str) -> Region:
        """A user's region.

        Raises:
            RegionNotFound: The user has none of that name.
        """
        region = self._regions.get((user, name))
        if region is None:
            raise RegionNotFound(
                f"no shared memory region '{name[:80]}' of yours is registered",
                remedy="call SystemSharedMemoryRegister first",
            )
        return region

    def has(self, regions: Sequence[Region], caller: Caller) -> bool:
        """Whether these are still regions of a caller; who it is matters only where there are any.

        Raises:
            NotSupported: The caller can have none.
        """
        if not regions:
            return True
        user = caller.user()
        return all(self._regions.get((user, region.name)) is region for region in regions)


def _open(user: int, key: str) -> int:
    """Open a user's own file; every reason why not is the same to the caller, who is told of no other's files.

    Raises:
        RequestInvalid: It cannot be had.
    """
    with contextlib.suppress(OSError):
        folder = os.open(DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(key[1:], flags, dir_fd=folder)
        finally:
            os.close(folder)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == user and _is_tmpfs(descriptor):
            return descriptor
        os.close(descriptor)
    raise RequestInvalid(
        f"no shared memory '{key}' of yours can be opened",
        remedy="create it as the user that calls, readable and writable by the server's user, in the same /dev/shm",
    )


def _is_tmpfs(descriptor: int) -> bool:
    """Whether a file is in memory: on a disk, reading it could take any time."""
    status = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).fstatfs(descriptor, status) != 0:
        return False
    return ctypes.c_long.from_buffer(status).value == _TMPFS_MAGIC
