"""The peers' own virtual environments, made once: nothing of theirs comes near ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime

REQUIREMENTS = {
    # The wheel carries Triton's own server binary and its Python backend; pinned, because the layout inside is used.
    "triton": ("nvidia-pytriton==0.7.0", "tritonclient[grpc]"),
    "kserve": ("kserve==0.21.0",),
}


def python_of(peer: str, folder: Path) -> Path | None:
    """The interpreter of a peer's environment, which is made the first time; None where that cannot be done.

    Args:
        peer: A key of `REQUIREMENTS`.
        folder: Where environments are kept; each takes about 0.5 GB.
    """
    home = folder / peer
    python, made = home / "bin" / "python", home / ".made"
    wanted = [*REQUIREMENTS[peer], f"onnxruntime=={onnxruntime.__version__}"]
    if made.exists() and made.read_text() == "\n".join(wanted):
        return python
    print(f"installing {' '.join(wanted)} into {home} …", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True, text=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True, capture_output=True, text=True)
    except (subprocess.CalledProcessError, OSError) as error:
        reason = error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else error
        print(f"{peer} is left out: {reason}")
        return None
    made.write_text("\n".join(wanted))
    return python
