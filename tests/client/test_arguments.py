"""What is typed wrong on the command line is said before anything runs, and never as a traceback."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.client.scripted import Script, serving_in_thread, well_behaved
from tests.client.test_command import run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stream", "x", "--fps", "fast"], "argument --fps: 'fast' is no number"),
        (["stream", "x", "--priority", "1000000000000"], "argument --priority: 1000000000000 is beyond 2147483647"),
        (["watch", "--count", "0"], "argument --count: 0 is not 1 or more"),
        (["watch", "--count", "1.5"], "argument --count: '1.5' is no whole number"),
        (["bench", "--cameras", "6,x"], "argument --cameras: 'x' is no whole number"),
        (["bench", "--rate", "thirty"], "argument --rate: 'thirty' is no number"),
        (["bench", "--seconds", "0"], "argument --seconds: 0 is not above 0"),
    ],
)
def test_a_number_that_is_none_is_named(arguments: list[str], message: str) -> None:
    assert message in run(*arguments, code=2).stderr


@pytest.mark.parametrize("command", ["stream", "watch", "bench", "engine", "state"])
def test_help_says_what_a_command_does_to_who_types_it(command: str) -> None:
    text = run(command, "--help").stdout
    described = text.split("\n\n")[1]
    assert described.startswith(("Send", "Follow", "Offer", "Show"))
    assert "Raises" not in text


@pytest.mark.parametrize("flag", ["--json", "--plot"])
def test_a_bench_finds_out_before_it_runs_that_its_figures_cannot_be_written(tmp_path: Path, flag: str) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "out.png"
    done = run("bench", flag, str(path), "--server", "127.0.0.1:1", code=2)  # nobody was asked
    assert f"cannot write {path}: " in done.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_bench_draws_no_format_that_it_does_not_know() -> None:
    done = run("bench", "--plot", "out.txt", "--server", "127.0.0.1:1", code=2)
    assert "let it end in .png, .svg, .pdf" in done.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "file").write_text("in the way")
    cv2.imwrite(str(tmp_path / "drive" / "0.png"), np.zeros((16, 16, 3), np.uint8))
    with serving_in_thread(Script(well_behaved)) as address:
        done = run("stream", str(tmp_path / "drive"), "--server", address, "--save", str(tmp_path / "file"), code=2)
    assert f"cannot write pictures to {tmp_path / 'file'}: File exists" in done.stderr
