from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save

from surround.__main__ import main

OTHER = save({"stem.weight": np.zeros(3, np.float32)})


@pytest.mark.parametrize("command", [[], ["render"], ["evaluate"], ["train"]])
def test_help_teaches_by_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "python -m surround" in text


def test_render_writes_a_mosaic(tmp_path: Path) -> None:
    assert main(["render", "-o", str(tmp_path), "--source", "size=160x96,town=suburb", "--at", "0.5"]) == 0
    assert cv2.imread(str(tmp_path / "mosaic.png")).shape == (192, 480, 3)


def test_render_writes_frames_for_calibration(tmp_path: Path) -> None:
    assert main(["render", "-o", str(tmp_path), "--frames", "3"]) == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00000.png", "00001.png", "00002.png"]
    assert cv2.imread(str(tmp_path / "00000.png")).shape == (384, 640, 3)


def test_a_bad_source_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "-o", str(tmp_path), "--source", "town=atlantis"]) == 2
    assert "known towns" in capsys.readouterr().err


def test_missing_weights_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--weights", str(tmp_path / "none.safetensors"), "--frames", "1"]) == 2
    said = capsys.readouterr().err
    assert "no weights at" in said and "none.safetensors\n  → leave --weights out" in said


@pytest.mark.parametrize("content", [b"", b"no safetensors", OTHER])
def test_a_file_that_holds_other_weights_ends_with_a_sentence(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.safetensors").write_bytes(content)
    assert main(["evaluate", "--weights", str(tmp_path / "other.safetensors"), "--frames", "1"]) == 2
    said = capsys.readouterr().err
    assert "other.safetensors holds no weights of the surround network" in said and "→ train some" in said
    assert content != OTHER or "Missing key(s)" in said


def test_metrics_that_cannot_be_written_are_said_before_a_frame_is_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--frames", "100000", "--json", str(tmp_path)]) == 2
    assert f"{tmp_path}" in (said := capsys.readouterr().err) and "→ check the path" in said


@pytest.mark.parametrize("command", [["render", "--frames"], ["evaluate", "--frames"], ["train", "--steps"]])
@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_counts_are_at_least_one(command: list[str], count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, count])
    assert stop.value.code == 2
    assert f"invalid number of 1 or more value: '{count}'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["render", "-o", str(tmp_path / "taken"), "--source", "size=160x96"]) == 2
    assert "→ check the path" in capsys.readouterr().err
    (tmp_path / "mosaic.png").mkdir()
    assert main(["render", "-o", str(tmp_path), "--source", "size=160x96"]) == 2
    assert "mosaic.png" in capsys.readouterr().err
