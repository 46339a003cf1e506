"""The images' recipes: lint, and what each of them promises."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SCRIPTS = sorted((ROOT / "docker").glob("*.sh"))
COMPILERS = {"gcc", "g++", "build-essential", "python3-dev", "cmake", "nvcc"}


def name(path: Path) -> str:
    return path.name


def runtime_stage(dockerfile: Path) -> str:
    return re.split(r"^FROM ", dockerfile.read_text(), flags=re.MULTILINE)[-1]


def test_there_is_one_image_per_kind_of_device() -> None:
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile", "jetson.Dockerfile"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install -e '.[dev]'")
    done = subprocess.run([hadolint, "--no-color", dockerfile], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_an_image_runs_as_a_user_without_rights_and_says_how_it_is(dockerfile: Path) -> None:
    stage = runtime_stage(dockerfile)
    assert re.search(r"^USER 10001$", stage, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .*CMD \["python", "/opt/monocoque/healthcheck.py"\]$', stage, re.MULTILINE)
    assert 'ENTRYPOINT ["python", "-m", "server"]' in stage


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_an_image_reports_nothing_to_anyone(dockerfile: Path) -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in runtime_stage(dockerfile)  # ONNX Runtime 1.29 and newer otherwise do


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_no_compiler_reaches_the_image(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    runtime = runtime_stage(dockerfile) + (text.split("FROM base AS build")[0] if "AS base" in text else "")
    assert not COMPILERS & set(re.findall(r"[\w+-]+", " ".join(re.findall(r"apt-get install [^&]*", runtime))))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_base_images_are_arguments(dockerfile: Path) -> None:
    arguments = set(re.findall(r"^ARG (\w+)=", dockerfile.read_text(), re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)
    named = set(re.findall(r"^FROM \S+ AS (\w+)", dockerfile.read_text(), re.MULTILINE))
    assert {base for base in bases if base not in named} == {f"${{{argument}}}" for argument in arguments}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_every_copied_file_exists_and_is_let_in(dockerfile: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert source == "." or source.partition("/")[0] in allowed, source


def test_the_offline_half_stays_out() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"engine", "server", "protos"} <= allowed
    assert not {"build_engine", "surround", "tests", "benchmarks"} & allowed


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_parse(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)


def stand_in_tensorrt(folder: Path, *, with_version: bool = True) -> dict[str, str]:
    """An environment whose python3 and ldconfig know an empty TensorRT."""
    packages = folder / "dist-packages"
    libraries = folder / "libraries"
    (packages / "tensorrt").mkdir(parents=True)
    (packages / "tensorrt" / "__init__.py").write_text("raise ImportError('the driver is missing')\n")
    if with_version:
        (packages / "tensorrt-10.13.3.dist-info").mkdir()
        (packages / "tensorrt-10.13.3.dist-info" / "METADATA").write_text("Name: tensorrt\nVersion: 10.13.3\n")
    libraries.mkdir()
    (libraries / "libnvinfer.so.10.13.3").write_bytes(b"engine")
    (libraries / "libnvinfer.so.10").symlink_to("libnvinfer.so.10.13.3")
    (libraries / "libnvinfer.so").symlink_to("libnvinfer.so.10")
    (libraries / "libnvonnxparser.so.10").write_bytes(b"parser")
    (libraries / "libnvinfer_builder_resource_sm87.so.10.13.3").write_bytes(b"kernels")
    (libraries / "libcublas.so.13").write_bytes(b"not TensorRT's")
    # ldconfig lists sonames and linker names, not the files behind them.
    known = [path for path in sorted(libraries.iterdir()) if path.name != "libnvinfer.so.10.13.3"]
    listed = "\n".join(f"\t{path.name} (libc6,x86-64) => {path}" for path in known)
    tools = folder / "tools"
    tools.mkdir()
    (tools / "ldconfig").write_text(f"#!/bin/sh\ncat <<'LIST'\n{listed}\nLIST\n")
    (tools / "python3").write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return {"PATH": f"{tools}:/usr/bin:/bin"}


def environment(folder: Path) -> Path:
    site = folder / "venv" / "lib" / "python3.12" / "site-packages"
    site.mkdir(parents=True)
    return folder / "venv"


def adopt(venv: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    script = ROOT / "docker" / "adopt_tensorrt.sh"
    return subprocess.run([script, venv], check=False, env=variables, capture_output=True, text=True)


def test_adopting_tensorrt_copies_module_version_and_one_file_per_soname(tmp_path: Path) -> None:
    venv = environment(tmp_path)
    done = adopt(venv, stand_in_tensorrt(tmp_path / "system"))
    assert done.returncode == 0, done.stderr
    site = venv / "lib" / "python3.12" / "site-packages"
    assert {path.name for path in site.iterdir()} == {"tensorrt", "tensorrt-10.13.3.dist-info"}
    assert {path.name: path.read_bytes() for path in (venv / "tensorrt").iterdir()} == {
        "libnvinfer.so.10": b"engine",
        "libnvinfer_builder_resource_sm87.so.10.13.3": b"kernels",
        "libnvonnxparser.so.10": b"parser",
    }


def test_adopting_tensorrt_says_what_is_missing(tmp_path: Path) -> None:
    venv = environment(tmp_path)
    variables = stand_in_tensorrt(tmp_path / "system", with_version=False)
    done = adopt(venv, variables)
    assert done.returncode == 1
    assert "no tensorrt-*.dist-info" in done.stderr
    shutil.rmtree(tmp_path / "system" / "dist-packages")
    done = adopt(venv, variables)
    assert done.returncode == 1
    assert "choose a BUILD_IMAGE with TensorRT's Python bindings" in done.stderr
