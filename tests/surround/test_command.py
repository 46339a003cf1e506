from pathlib import Path

import cv2
import pytest

from surround.__main__ import main


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
    assert main(["render", "-o", str(tmp_path), "--source", "town=atlantis"]) == 1
    assert "known towns" in capsys.readouterr().err


def test_missing_weights_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--weights", str(tmp_path / "none.safetensors"), "--frames", "1"]) == 1
    assert "none.safetensors" in capsys.readouterr().err
