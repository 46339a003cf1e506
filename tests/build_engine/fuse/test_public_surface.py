import subprocess
import sys

from build_engine import fuse


def test_all() -> None:
    assert fuse.__all__ == [
        "Cost",
        "FuseOptions",
        "FuseReport",
        "FuseResult",
        "FusedRegion",
        "FusionMismatch",
        "KeptRegion",
        "VerifiedFusion",
        "Verifier",
        "count",
        "fuse",
        "fuse_verified",
    ]


def test_torch_is_not_needed() -> None:
    code = "import sys, build_engine.fuse, build_engine.fuse.verify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
