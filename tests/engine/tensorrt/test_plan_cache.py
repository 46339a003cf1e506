import json
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from engine.errors import PlanRejected, RuntimeUnavailable
from engine.tensorrt.plan_cache import KEY_FILE, PlanCache, default_plan_cache

BUNDLE = "b" * 64
KEY = {"runtime": "tensorrt", "runtime_version": "10.3.0.30", "sm_count": "16"}
PLAN = bytes(range(256)) * 4


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    cache = PlanCache(tmp_path / "plans")
    cache.store(BUNDLE, KEY, PLAN)
    return cache


def sidecar_of(cache: PlanCache) -> Path:
    (path,) = cache.directory.glob("*.json")
    return path


def plan_of(cache: PlanCache) -> Path:
    (path,) = cache.directory.glob("*.plan")
    return path


def test_a_plan_comes_back(cache: PlanCache) -> None:
    assert cache.load(BUNDLE, KEY) == PLAN
    assert PlanCache(cache.directory).load(BUNDLE, KEY) == PLAN


def test_another_bundle_or_key_has_none(cache: PlanCache) -> None:
    assert cache.load("c" * 64, KEY) is None
    assert cache.load(BUNDLE, {**KEY, "sm_count": "8"}) is None


def test_an_empty_cache_has_none(tmp_path: Path) -> None:
    assert PlanCache(tmp_path / "absent").load(BUNDLE, KEY) is None
    assert not (tmp_path / "absent").exists()


def test_only_the_user_reads_the_secret(cache: PlanCache) -> None:
    assert stat.S_IMODE((cache.directory / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700
    assert len((cache.directory / KEY_FILE).read_bytes()) == 32


def test_a_flipped_byte_of_the_plan_is_found(cache: PlanCache) -> None:
    path = plan_of(cache)
    path.write_bytes(PLAN[:100] + b"\x00" + PLAN[101:])
    with pytest.raises(PlanRejected, match="has SHA-256") as caught:
        cache.load(BUNDLE, KEY)
    assert path.name in caught.value.message
    assert caught.value.remedy == f"compile the plan again: rm {sidecar_of(cache)}"


@pytest.mark.parametrize("field", ["bundle_sha256", "key", "plan_sha256", "hmac"])
def test_a_changed_sidecar_is_found(cache: PlanCache, field: str) -> None:
    path = sidecar_of(cache)
    record = json.loads(path.read_text())
    record[field] = {**KEY, "sm_count": "9"} if field == "key" else "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(PlanRejected, match="not written by this device"):
        cache.load(BUNDLE, KEY)


def test_a_plan_and_sidecar_of_another_device_are_refused(cache: PlanCache, tmp_path: Path) -> None:
    other = PlanCache(tmp_path / "other")
    other.store(BUNDLE, KEY, b"evil")
    sidecar_of(cache).write_bytes(sidecar_of(other).read_bytes())
    (cache.directory / plan_of(other).name).write_bytes(b"evil")
    with pytest.raises(PlanRejected, match="not written by this device"):
        cache.load(BUNDLE, KEY)


def test_a_sidecar_moved_to_another_keys_place_is_refused(cache: PlanCache) -> None:
    other = {**KEY, "sm_count": "8"}
    sidecar_of(cache).rename(cache._sidecar(BUNDLE, other))
    with pytest.raises(PlanRejected, match=r"is for key .*'16'.*, needed is .*'8'"):
        cache.load(BUNDLE, other)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"bundle_sha256": 1}', "null", '{"key": {"a": "\\u00e9"}}'])
def test_a_damaged_sidecar_is_refused(cache: PlanCache, text: str) -> None:
    sidecar_of(cache).write_text(text)
    with pytest.raises(PlanRejected, match="is damaged"):
        cache.load(BUNDLE, KEY)


def test_a_plan_that_vanished_is_refused(cache: PlanCache) -> None:
    plan_of(cache).unlink()
    with pytest.raises(PlanRejected, match="No such file"):
        cache.load(BUNDLE, KEY)


def test_a_directory_that_others_can_write_to_is_refused(cache: PlanCache) -> None:
    cache.directory.chmod(0o777)
    with pytest.raises(PlanRejected, match="others can write to") as caught:
        cache.load(BUNDLE, KEY)
    assert "chmod 700" in caught.value.remedy


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_secret_that_others_can_read_is_none(cache: PlanCache, mode: int) -> None:
    (cache.directory / KEY_FILE).chmod(mode)
    with pytest.raises(PlanRejected, match="is no secret"):
        cache.load(BUNDLE, KEY)


def test_a_short_secret_is_none(cache: PlanCache) -> None:
    (cache.directory / KEY_FILE).write_bytes(b"short")
    with pytest.raises(PlanRejected, match="5 bytes; want"):
        cache.load(BUNDLE, KEY)


def test_a_secret_behind_a_link_is_not_followed(cache: PlanCache, tmp_path: Path) -> None:
    secret = cache.directory / KEY_FILE
    secret.rename(tmp_path / "elsewhere")
    secret.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        cache.load(BUNDLE, KEY)


def test_a_newer_plan_replaces_the_older(cache: PlanCache) -> None:
    cache.store(BUNDLE, KEY, b"newer")
    assert cache.load(BUNDLE, KEY) == b"newer"
    assert len(list(cache.directory.glob("*.plan"))) == 1


def test_a_full_disk_leaves_the_older_plan(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in cache.directory.iterdir())

    def full(descriptor: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            cache.store(BUNDLE, KEY, b"newer")
    assert sorted(path.name for path in cache.directory.iterdir()) == before
    assert cache.load(BUNDLE, KEY) == PLAN


def test_of_two_that_start_at_once_one_secret_stays(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    tmp_path.chmod(0o700)
    cache._make_secret(tmp_path / KEY_FILE)
    first = (tmp_path / KEY_FILE).read_bytes()
    cache._make_secret(tmp_path / KEY_FILE)
    assert (tmp_path / KEY_FILE).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_plan_cache() == tmp_path / "monocoque" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_plan_cache() == tmp_path / ".cache" / "monocoque" / "plans"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RuntimeUnavailable, match="no place for compiled plans") as caught:
        default_plan_cache()
    assert "XDG_CACHE_HOME" in caught.value.remedy
