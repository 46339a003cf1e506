"""Plans compiled on this device, kept outside the bundle, which is immutable."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.bundle import sha256
from engine.errors import PlanRejected, RuntimeUnavailable

KEY_FILE = "device.key"
KEY_BYTES = 32


def default_plan_cache() -> Path:
    """`$XDG_CACHE_HOME/monocoque/plans`, or the same under `~/.cache` (XDG Base Directory Specification).

    Raises:
        RuntimeUnavailable: The user has no home directory, as in many containers.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The specification has relative paths ignored.
        return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "monocoque" / "plans"
    except RuntimeError as error:
        raise RuntimeUnavailable(
            f"there is no place for compiled plans: {error}", remedy="name one: set XDG_CACHE_HOME, or --plan-cache DIR"
        ) from error


class PlanCache:
    """A directory of plans, each with a sidecar that says what it was compiled from and for.

    A plan is executable code, so what lies in a directory is no reason to run it: the sidecar (bundle digest, full key,
    plan digest) carries an HMAC-SHA256 made with a secret of this device, which only the service's own user can read.

    Args:
        directory: Where; None means `default_plan_cache()`. Made where it does not exist.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = default_plan_cache() if directory is None else directory

    def load(self, bundle_digest: str, key: Mapping[str, str]) -> bytes | None:
        """The plan for a bundle and a key.

        Returns:
            Its bytes, or None where there is none.

        Raises:
            PlanRejected: There is one, and it, its sidecar or the directory was tampered with or damaged.
        """
        sidecar = self._sidecar(bundle_digest, key)
        if not sidecar.exists():
            return None
        self._check_directory()
        record = _read_record(sidecar)
        expected = _seal(self._secret(), record["bundle_sha256"], record["key"], record["plan_sha256"])
        if not hmac.compare_digest(expected, record["hmac"]):
            raise PlanRejected(
                f"{sidecar} was not written by this device: its HMAC is {record['hmac']}, expected is {expected}",
                remedy=f"compile the plan again: rm {sidecar}",
            )
        for fact, recorded, wanted in (
            ("bundle", record["bundle_sha256"], bundle_digest),
            ("key", record["key"], dict(key)),
        ):
            if recorded != wanted:
                raise PlanRejected(
                    f"{sidecar} is for {fact} {recorded}, needed is {wanted}",
                    remedy=f"compile the plan again: rm {sidecar}",
                )
        plan = _plan_path(sidecar, record["plan_sha256"])
        try:
            data = plan.read_bytes()
        except OSError as error:
            raise PlanRejected(f"{plan}: {error.strerror}", remedy=f"compile the plan again: rm {sidecar}") from error
        if sha256(data) != record["plan_sha256"]:
            raise PlanRejected(
                f"{plan} has SHA-256 {sha256(data)}, its sidecar says {record['plan_sha256']}",
                remedy=f"compile the plan again: rm {sidecar}",
            )
        return data

    def store(self, bundle_digest: str, key: Mapping[str, str], plan: bytes) -> None:
        """Keep a plan. The sidecar, written last and in one step, is what makes it one.

        Raises:
            PlanRejected: Others can write to the directory.
            OSError: The disk refused; nothing is left behind.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_directory()
        sidecar = self._sidecar(bundle_digest, key)
        digest = sha256(plan)
        path = _plan_path(sidecar, digest)
        record = {
            "bundle_sha256": bundle_digest,
            "key": dict(key),
            "plan_sha256": digest,
            "hmac": _seal(self._secret(), bundle_digest, dict(key), digest),
        }
        _write_whole(path, plan)
        _write_whole(sidecar, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
        for older in self.directory.glob(f"{sidecar.stem}-*.plan"):
            if older != path:
                older.unlink(missing_ok=True)

    def _sidecar(self, bundle_digest: str, key: Mapping[str, str]) -> Path:
        return self.directory / f"{sha256(_canonical([bundle_digest, dict(key)]))[:32]}.json"

    def _check_directory(self) -> None:
        status = self.directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PlanRejected(
                f"others can write to {self.directory} (mode {stat.filemode(status.st_mode)}, owner {status.st_uid}), "
                "so a plan from there could be anyone's",
                remedy=f"chown {os.geteuid()} {self.directory} && chmod 700 {self.directory}, "
                "or name another with --plan-cache",
            )

    def _secret(self) -> bytes:
        """The device's key, made on first use."""
        path = self.directory / KEY_FILE
        if not path.exists():
            self._make_secret(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            status = os.fstat(descriptor)
            secret = file.read(KEY_BYTES + 1)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077 or len(secret) != KEY_BYTES:
            raise PlanRejected(
                f"{path} is no secret: mode {stat.filemode(status.st_mode)}, owner {status.st_uid}, "
                f"{len(secret)} bytes; want -rw-------, {os.geteuid()}, {KEY_BYTES}",
                remedy=f"discard it and every plan it vouched for: rm -r {self.directory}",
            )
        return secret

    def _make_secret(self, path: Path) -> None:
        fresh = path.with_name(f".{KEY_FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - as above
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(descriptor)
            # Linking fails where a key exists, so of two processes that start at once one key stays, and it is whole.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink()


def _plan_path(sidecar: Path, digest: str) -> Path:
    return sidecar.with_name(f"{sidecar.stem}-{digest[:16]}.plan")


def _canonical(value: Any) -> bytes:  # noqa: ANN401 - JSON
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _seal(secret: bytes, bundle_digest: str, key: Mapping[str, str], plan_digest: str) -> str:
    return hmac.new(secret, _canonical([bundle_digest, dict(key), plan_digest]), hashlib.sha256).hexdigest()


def _read_record(sidecar: Path) -> dict[str, Any]:
    try:
        record = json.loads(sidecar.read_bytes())
        texts = (
            record["bundle_sha256"],
            record["plan_sha256"],
            record["hmac"],
            *record["key"],
            *record["key"].values(),
        )
        if not all(isinstance(text, str) and text.isascii() for text in texts):
            raise ValueError("a value is no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise PlanRejected(
            f"{sidecar} is damaged: {error!r}", remedy=f"compile the plan again: rm {sidecar}"
        ) from error
    return dict(record)


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a loss of power."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
