"""The map's last column: which of our folders may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"build_engine", "engine", "server", "client", "protos", "surround", "demo", "benchmarks", "tests"}
MAY_IMPORT = {
    "build_engine": {"engine"},
    "engine": set(),
    "server": {"engine", "protos"},
    "client": {"protos"},
    "protos": set(),
    "surround": set(),
    "demo": {"client", "surround"},
}
BASE_INSTALL_LACKS = {"torch", "onnx", "onnxscript", "onnx_ir", "matplotlib", "jinja2"}
ASKED_FOR = {"client/bench/plot.py": {"matplotlib"}}
"""Files that import an extra inside the function that needs it, and say which extra where it is absent."""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_a_folder_imports_only_what_the_map_allows(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        strays = (imported(path) & OURS) - MAY_IMPORT[folder] - {folder}
        assert not strays, f"{path.relative_to(ROOT)} imports {', '.join(sorted(strays))}"


@pytest.mark.parametrize("folder", ["engine", "server", "client", "protos"])
def test_what_runs_on_a_vehicle_needs_nothing_beyond_the_base_install(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        strays = (imported(path) & BASE_INSTALL_LACKS) - ASKED_FOR.get(str(path.relative_to(ROOT)), set())
        assert not strays, f"{path.relative_to(ROOT)} imports {', '.join(sorted(strays))}"


def test_the_server_loads_no_torch_and_no_onnx() -> None:
    script = "import sys, server.__main__; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not BASE_INSTALL_LACKS & set(done.stdout.split())
