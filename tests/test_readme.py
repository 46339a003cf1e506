"""README's commands, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
MEASURING_TAKES_A_MINUTE = ("python -m build_engine build ", "python -m build_engine build --latency-seconds 0.1 ")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tracked files by links, so that `out/` is this test's own."""
    for entry in ROOT.iterdir():
        if entry.name not in {"out", "build"}:
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def run(block: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", block],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_first_block_is_two_targets_of_the_makefile() -> None:
    targets = re.findall(r"^make (\w+)", BLOCKS[0], flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_from_a_checkpoint_to_live_results(checkout: Path) -> None:
    build, serve = BLOCKS[1:3]
    told = run(build.replace(*MEASURING_TAKES_A_MINUTE), checkout)
    assert "fused" in told
    assert (checkout / "out/engine/report.html").exists()
    assert list((checkout / "out/engine/plans").iterdir())
    (checkout / "example.py").write_text(PYTHON[0])
    told = run(serve.replace("python -m client engine\n", "python -m client engine\npython example.py\n"), checkout)
    assert re.search(r"(car|truck|cyclist|pedestrian) 0\.\d\d, \d+ m away", told)
    assert "cpu-int8" in told
    assert list((checkout / "out/pictures").rglob("*.*"))
