from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import StartFailed
from server.settings import EXAMPLES, Settings, load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text("bundle: from/file\nport: 1111\nmetrics-port: 1112\nmax_frame: 640x480\nthreads: 4\n")
    return path


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOCOQUE_PORT", "2222")
    monkeypatch.setenv("MONOCOQUE_METRICS_PORT", "2223")
    found = load_settings(["--config", str(config), "--port", "3333"])
    assert found.port == 3333
    assert found.metrics_port == 2223
    assert found.threads == 4
    assert found.frame_size == (640, 480)
    assert found.bundle == (Path("from/file"),)
    assert found.host == "127.0.0.1"


def test_the_file_and_the_bundle_may_come_from_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONOCOQUE_CONFIG", str(config))
    monkeypatch.setenv("MONOCOQUE_BUNDLE", "from/environment")
    found = load_settings([])
    assert (found.bundle, found.port) == ((Path("from/environment"),), 1111)
    assert load_settings(["from/flag", "and/another"]).bundle == (Path("from/flag"), Path("and/another"))


def test_sizes_and_switches_read_as_people_write_them() -> None:
    found = load_settings(["b", "--memory-budget", "512M", "--max-frame", "3840x2160", "--fallback", "--no-self-check"])
    assert found.memory_budget == 512 << 20
    assert found.frame_size == (3840, 2160)
    assert found.fallback
    assert not found.self_check
    assert load_settings(["b"]).memory_budget == 1 << 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "bundle: not given"),
        (["b", "--port", "70000"], "port: Input should be less than or equal to 65535, not '70000'"),
        (["b", "--max-frame", "big"], "max-frame: write WIDTHxHEIGHT, for example 1920x1080, not 'big'"),
        (["b", "--memory-budget", "lots"], "memory-budget: 'lots' is no amount of memory"),
        (["b", "--threads", "0"], "threads: Input should be greater than or equal to 1"),
        (["b", "--target", "toaster"], "target: Input should be 'cpu'"),
        (["b", "--config", "/does/not/exist"], "no configuration file at /does/not/exist"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(arguments: list[str], message: str) -> None:
    with pytest.raises((StartFailed, SystemExit)) as caught:
        load_settings(arguments)
    if isinstance(caught.value, StartFailed):
        assert message in str(caught.value)
        assert "→" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 3", "prot: no such setting"),
        ("- a list", "cannot be read as settings"),
        ("port: [", "cannot be read as settings"),
        ("port: seven", "port: Input should be a valid integer"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(StartFailed) as caught:
        load_settings(["b", "--config", str(path)])
    assert message in str(caught.value)


def test_help_teaches_by_example_and_prints_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert EXAMPLES.strip() in told
    for name in Settings.model_fields:
        assert name == "bundle" or f"--{name.replace('_', '-')}" in told
    for default in ("127.0.0.1", "8001", "8002", "1920x1080", "1G", "info"):
        assert f"default: {default}" in " ".join(told.split())


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["b", "--prot", "3"])
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err
