"""The CPU image itself: built, served from, streamed to, stopped. Two minutes on two idle cores, so only on request."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.bundles import write_bundle

ROOT = Path(__file__).resolve().parents[2]


def test_the_cpu_image_serves_frames(tmp_path: Path) -> None:
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing or os.geteuid():
        pytest.skip(
            f"needs root and {' and '.join(missing) or 'nothing else'} (Debian: apt-get install buildah debootstrap)"
        )
    if os.environ.get("MONOCOQUE_IMAGE_TEST") != "1":
        pytest.skip("takes minutes; MONOCOQUE_IMAGE_TEST=1 runs it")
    bundle = write_bundle(tmp_path / "bundle")
    command = [sys.executable, str(ROOT / "docker" / "try_image.py"), str(bundle)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped by SIGTERM with exit code 0" in done.stdout
