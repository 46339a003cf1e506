"""What the demo is told wrong is said before it builds anything, which takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fps", "0"], "argument --fps: 0 is not a rate"),
        (["--seconds", "-1"], "argument --seconds: -1 is not above 0"),
        (["--seconds", "long"], "argument --seconds: 'long' is no number"),
    ],
)
def test_a_number_that_makes_no_drive_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["-o", str(tmp_path / "file" / "out")]) == 2
    assert f"cannot make the folder {tmp_path / 'file' / 'out'}: Not a directory" in capsys.readouterr().err
