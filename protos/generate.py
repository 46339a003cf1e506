"""Writes the Python code of the `.proto` files beside them: `python protos/generate.py`.

`--check` writes nothing and exits with 1 where the committed code is not what the `.proto` files say.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write the code for every `.proto` file under `protos/` to `out`, with imports below `protos`."""
    protos = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT}",
            f"--python_out={out}",
            f"--mypy_out=quiet:{out}",
            *protos,
        ],
        check=True,
        env={"PATH": str(Path(sys.executable).parent)},
    )
    for path in [*out.rglob("*_pb2.py"), *out.rglob("*_pb2.pyi")]:
        text = path.read_text()
        for package in ("monocoque.v1", "inference"):
            text = text.replace(f"from {package} import", f"from protos.{package} import")
        path.write_text(text)


def main() -> int:
    """Generate, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = [
            path.relative_to(scratch).as_posix()
            for path in Path(scratch).rglob("*_pb2.py*")
            if not (committed := ROOT / path.relative_to(scratch)).exists() or committed.read_text() != path.read_text()
        ]
    if stale:
        print(f"not what the .proto files say: {', '.join(stale)}\n  → python protos/generate.py", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
