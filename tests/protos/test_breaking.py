import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[2] / "protos"
BUF = Path(sys.executable).parent / "buf"


def buf_breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, "breaking", "--against", str(PROTOS / "baseline.binpb")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("uint64 sequence = 2;", "uint32 sequence = 2;", "changed type"),
        ("uint64 sequence = 2;", "uint64 sequence = 22;", "deleted"),
        ("ENCODING_PNG = 2;", "ENCODING_PNG = 99;", "deleted"),
    ],
)
def test_a_change_that_old_clients_cannot_read_is_refused(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    camera = tmp_path / "protos/monocoque/v1/camera.proto"
    assert before in camera.read_text()
    camera.write_text(camera.read_text().replace(before, after))
    done = buf_breaking(tmp_path / "protos")
    assert done.returncode != 0
    assert complaint in done.stdout
