from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from build_engine.__main__ import main
from engine.bundle import Bundle
from tests.build_engine import networks

FACTORY = "tests.build_engine.networks:classifier"
SHAPE = ("--input-shape", "1,3,64,96")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build_engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bundle(classifier_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "bundle"
    assert main(["build", str(classifier_file), "-o", str(path), "--latency-seconds", "0"]) == 0
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that a user got wrong: exit code 2, what happened, what to do, and no traceback."""
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    message, arrow, remedy = said.partition("\n  → ")
    assert "error: " in message and arrow and remedy.strip()
    return said


def test_help_teaches_by_example() -> None:
    finished = run("--help")
    assert finished.returncode == 0
    assert "python -m build_engine build" in finished.stdout and "--precision int8" in finished.stdout


def test_every_default_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for default in ("(default: all are", "(default: letterbox)", "(default: 8)", "(default: fp32)", "0..255 scale"):
        assert default in said


def test_a_flipped_byte_is_found_and_its_file_is_named(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for source in bundle.rglob("*"):
        if source.is_file():
            target = copy / source.relative_to(bundle)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    graph = copy / "graphs" / "float.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    finished = run("verify", copy)
    assert finished.returncode == 2
    assert "graphs/float.onnx has SHA-256" in finished.stderr and "Traceback" not in finished.stderr


def test_verify_runs_the_reference_cases(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "files match their digests" in said and "agrees with the float graph on 3 reference cases" in said


def test_verify_for_a_target_that_is_not_here_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "it serves cpu" in fails(capsys, "verify", bundle, "--target", "jetson-orin")


def test_inspect_shows_what_a_bundle_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    assert "batch x 3 x 64 x 96" in capsys.readouterr().out
    assert main(["inspect", str(bundle), "--json"]) == 0
    assert capsys.readouterr().out.encode() == Bundle.open(bundle).manifest.to_bytes()


def test_fuse_writes_a_model_and_tells_what_it_did(
    classifier_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuse", str(classifier_file), "-o", str(tmp_path / "fused.onnx"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["before"]["convolutions"] == 8
    assert report["after"]["convolutions"] < 8
    onnx.checker.check_model(onnx.load(tmp_path / "fused.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["fused.onnx"]


def test_a_corrupt_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x00\x01garbage")
    assert "broken.onnx" in fails(capsys, "build", tmp_path / "broken.onnx", "-o", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


def test_a_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model at" in fails(capsys, "build", tmp_path / "none.onnx", "-o", tmp_path / "b")


def test_a_checkpoint_with_missing_keys_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = dict(networks.classifier().state_dict())
    del weights["head.weight"]
    torch.save(weights, tmp_path / "w.pt")
    said = fails(capsys, "build", FACTORY, *SHAPE, "--weights", tmp_path / "w.pt", "-o", tmp_path / "b")
    assert "1 missing: head.weight" in said


def test_an_operator_that_no_runtime_has_is_named_with_its_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    node = helper.make_node("Hologram", ["x"], ["y"], "projector", domain="acme")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=8),
        tmp_path / "m.onnx",
    )
    said = fails(capsys, "build", tmp_path / "m.onnx", "-o", tmp_path / "b")
    assert "Hologram" in said and "'projector'" in said


def test_an_operator_that_tensorrt_refuses_is_named_with_its_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        for name, sizes in (("boxes", [1, 8, 4]), ("scores", [1, 1, 8]))
    ]
    chosen = helper.make_tensor_value_info("chosen", TensorProto.INT64, ["n", 3])
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["chosen"], "suppress")
    graph = helper.make_graph([node], "g", values, [chosen])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    said = fails(
        capsys, "build", tmp_path / "m.onnx", "-o", tmp_path / "b", "--target", "rtx", "--latency-seconds", "0"
    )
    assert "NonMaxSuppression" in said and "suppress" in said
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mean", "1,2,3"), "without --std, --color"),
        (("--mean", "a,b,c", "--std", "1,1,1", "--color", "rgb"), "no list of numbers"),
        (
            ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--color", "rgb"),
            "--mean 123.675,116.28,103.53",
        ),
        (("--input-shape", "huge"), "no shape"),
        (("--metric-arg", "frames"), "has no '='"),
        (("--metric", "nowhere:metric"), "no metric"),
        (("--max-batch", "0"), "at least 1"),
        (("--latency-seconds", "-1"), "is no time"),
        (("--latency-seconds", "nan"), "is no time"),
        (("--name", "a b"), "--name 'a b'"),
        (("--weights", "w.pt"), "has its weights inside"),
        (("--calibration-data", "nowhere"), "no folder at nowhere"),
        (("--max-accuracy-drop", "0.3"), "FP32 loses nothing"),
        (("--precision", "int8", "--max-accuracy-drop", "-1"), "is no number of points"),
        (("--precision", "fp16", "--target", "rtx", "--max-accuracy-drop", "1"), "needs frames to measure on"),
        (("--precision", "bf16"), "target cpu has no BF16"),
        (("--precision", "fp8", "--target", "rtx", "--target", "jetson-orin"), "from compute capability 8.9 on"),
        (("--precision", "fp8", "--target", "rtx"), "FP8 needs to see what the network's tensors hold"),
    ],
)
def test_what_was_typed_wrong_is_said_with_what_to_type(
    arguments: tuple[str, ...], says: str, classifier_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in fails(capsys, "build", classifier_file, "-o", tmp_path / "b", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "says"),
    [("file", "exists and is no bundle"), ("folder", "exists and is no bundle"), ("file/bundle", "is no folder")],
)
def test_where_no_bundle_can_lie_is_said_before_the_model_is_read(
    output: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert says in fails(capsys, "build", tmp_path / "none.onnx", "-o", tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_calibration_folder_is_said_before_the_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent"
    said = fails(
        capsys, "build", "none.onnx", "-o", tmp_path / "b", "--precision", "int8", "--calibration-data", absent
    )
    assert f"no folder at {absent}" in said


@pytest.mark.parametrize("command", ["build", "fuse"])
def test_a_disk_that_refuses_leaves_nothing_and_is_named(command: str, classifier_file: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a disk that is full."""
    output = tmp_path / "out" / "fused.onnx"
    output.parent.mkdir()
    arguments = [command, str(classifier_file), "-o", str(output), "--latency-seconds", "0"]
    line = 'trap "" XFSZ; ulimit -f 1; exec "$@"'
    finished = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, "-m", "build_engine", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 2 and "Traceback" not in finished.stderr
    assert f"{output}: File too large" in finished.stderr and "\n  → " in finished.stderr
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_interrupted_says_so_and_leaves_nothing(
    number: signal.Signals, classifier_file: Path, frames_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "waits.py").write_text(
        "import pathlib, time\n\n\ndef metric(run):\n    pathlib.Path('asked').touch()\n    time.sleep(600)\n"
    )
    arguments = ["build", str(classifier_file), "-o", "out/bundle", "--latency-seconds", "0", "--precision", "int8"]
    arguments += ["--mean", "110,110,110", "--std", "60,60,60", "--color", "rgb", "--search-cache", "cache"]
    arguments += ["--calibration-data", str(frames_folder), "--max-accuracy-drop", "1", "--metric", "waits:metric"]
    (tmp_path / "out").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-m", "build_engine", *arguments],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        while not (tmp_path / "asked").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "stopped; nothing was written" in said and "Traceback" not in said
    assert not list((tmp_path / "out").iterdir())
