"""Clients that are not ours, installed beside the tests' own environment the first time they are needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

CLIENTS = Path(__file__).with_name("clients")
INSTALLED = Path(sys.prefix) / "share" / "monocoque-foreign-clients"
INSTALL_SECONDS = 100
"""Only a registry that does not answer takes this long."""
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
NPM = ["npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--no-package-lock", "--ignore-scripts"]
RETRY_ONCE = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"]
"""npm's own: twice, after 10 s and 60 s, and 300 s for an answer. Where a proxy's certificate is known to the
environment alone (NODE_EXTRA_CA_CERTS), or a network drops what is not for it, each request is waited for so long."""


def python_packages() -> Path:
    """The folder with `tritonclient` and `grpcurl`, for a PYTHONPATH."""
    listed = CLIENTS / "requirements.txt"
    return _installed(
        listed,
        lambda folder: [*PIP, "--target", str(folder), "--requirement", str(listed)],
    )


def node_packages() -> Path:
    """The folder with `@grpc/grpc-js`, for a NODE_PATH."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("left out: no node and npm here (Debian: apt-get install nodejs npm)")
    listed = CLIENTS / "package.json"
    how = [*RETRY_ONCE, "--prefer-offline", "--loglevel=error"]
    folder = _installed(listed, lambda folder: [*NPM, *how, "--prefix", str(folder)])
    return folder / "node_modules"


def _installed(listed: Path, command: Callable[[Path], list[str]]) -> Path:
    """Install what a file lists, once: the folder's name says which content of the file it is for."""
    folder = INSTALLED / f"{listed.stem}-{hashlib.sha256(listed.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=INSTALLED) as scratch:
        unfinished = Path(scratch) / folder.name
        unfinished.mkdir()
        shutil.copy(listed, unfinished)
        try:
            done = subprocess.run(
                command(unfinished), capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"left out: {listed.name} could not be installed: no answer in {INSTALL_SECONDS} s")
        if done.returncode:
            pytest.skip(f"left out: {listed.name} could not be installed: {done.stderr.strip()[:300]}")
        unfinished.rename(folder)
    return folder
