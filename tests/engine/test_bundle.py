import subprocess
import zipfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bundle import CHECKSUMS, MANIFEST, Bundle, BundleWriter, ReferenceCase, pack_reference
from engine.bundle_files import ZIP_SEAL
from engine.errors import BundleCorrupt, BundleError, BundleInvalid, BundleNotFound
from tests.engine.bundles import REPORTS, write_bundle


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "camera").path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "camera.zip").path


def tree(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@settings(max_examples=150)
@given(data=st.data())
def test_any_flipped_byte_of_a_directory_is_found_and_its_file_named(directory: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tree(directory))))
    file = directory / name
    intact = file.read_bytes()
    position = data.draw(st.integers(0, len(intact) - 1))
    mask = data.draw(st.integers(1, 255))
    flipped = bytearray(intact)
    flipped[position] ^= mask
    file.write_bytes(flipped)
    try:
        with pytest.raises(BundleError) as caught:
            Bundle.open(directory)
    finally:
        file.write_bytes(intact)
    named = {name} if name != CHECKSUMS else {*tree(directory)}
    assert any(candidate in str(caught.value) for candidate in named)


@settings(max_examples=200)
@given(data=st.data())
def test_any_flipped_byte_of_an_archive_is_found_and_a_file_named(archive: Path, data: st.DataObject) -> None:
    intact = archive.read_bytes()
    # Headers are few beside the contents, so half of the flips aim at the directory at the end.
    positions = st.integers(0, len(intact) - 1) | st.integers(len(intact) - 900, len(intact) - 1)
    position = data.draw(positions)
    flipped = bytearray(intact)
    flipped[position] ^= data.draw(st.integers(1, 255))
    archive.write_bytes(flipped)
    try:
        with pytest.raises(BundleError, match=r"camera\.zip"):
            Bundle.open(archive)
    finally:
        archive.write_bytes(intact)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_archive_is_refused(archive: Path, tmp_path: Path, cut: int) -> None:
    short = tmp_path / "short.zip"
    short.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(BundleError, match=r"short\.zip"):
        Bundle.open(short)


def test_the_same_inputs_make_the_same_bytes(tmp_path: Path, directory: Path, archive: Path) -> None:
    assert tree(write_bundle(tmp_path / "again").path) == tree(directory)
    assert write_bundle(tmp_path / "again.zip").path.read_bytes() == archive.read_bytes()


def test_a_directory_and_an_archive_are_the_same_bundle(directory: Path, archive: Path) -> None:
    left, right = Bundle.open(directory), Bundle.open(archive)
    assert left.digest == right.digest
    assert left.names == right.names
    assert all(left.read(name) == right.read(name) for name in left.names if name != CHECKSUMS)


def test_the_digest_leaves_the_report_out(tmp_path: Path, directory: Path) -> None:
    bundle = Bundle.open(directory)
    writer = BundleWriter()
    for name in bundle.manifest.files:
        writer.add(name, bundle.read(name))
    writer.write(tmp_path / "faster", bundle.manifest, {"report.json": b'{"milliseconds": 2.1}\n'})
    assert Bundle.open(tmp_path / "faster").digest == bundle.digest


def test_sha256sum_checks_a_bundle_without_us(directory: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "--strict", CHECKSUMS], cwd=directory, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reference_cases_come_back(directory: Path) -> None:
    (case,) = Bundle.open(directory).reference_cases()
    assert case.inputs["images"].shape == (2, 24, 32, 3)
    assert case.outputs["features"].dtype == np.float32


def test_objects_that_only_unpickling_could_read_are_not_packed() -> None:
    with pytest.raises(ValueError, match="holds Python objects"):
        pack_reference(ReferenceCase("reference/0.npz", {"x": np.array([{}])}, {}))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no bundle at"):
        Bundle.open(tmp_path / "absent")


def test_a_folder_of_other_things_is_no_bundle_and_nothing_in_it_is_to_be_removed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(BundleNotFound, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a zip")
    with pytest.raises(BundleNotFound, match="neither a directory nor a zip"):
        Bundle.open(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["graphs/float.onnx", MANIFEST, CHECKSUMS, "report.html", "reference/0.npz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = write_bundle(tmp_path / "bundle").path
    (path / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(path)


def test_an_added_file_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle").path
    (path / "plans").mkdir()
    (path / "plans" / "evil.plan").write_bytes(b"code")
    with pytest.raises(BundleCorrupt, match=r"plans/evil\.plan is not part of the bundle"):
        Bundle.open(path)


def test_an_added_file_with_a_checksum_is_refused_too(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle").path
    (path / "zz.plan").write_bytes(b"code")
    digest = "5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b"
    sums = (path / CHECKSUMS).read_text() + f"{digest}  zz.plan\n"
    (path / CHECKSUMS).write_text(sums)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json does not name zz\.plan"):
        Bundle.open(path)


def test_an_added_member_of_an_archive_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle.zip").path
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.txt", "hello")
    with pytest.raises(BundleCorrupt, match=r"extra\.txt is not part of the bundle"):
        Bundle.open(path)


def test_an_archive_of_ones_own_is_refused_with_the_way_out(tmp_path: Path, directory: Path) -> None:
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in tree(directory).items():
            archive.writestr(name, data)
    with pytest.raises(BundleCorrupt, match="use the directory"):
        Bundle.open(path)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "a//b", "a\\b", "./manifest.json", "line\nfeed"]
)
def test_an_archive_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    path = write_bundle(tmp_path / "bundle.zip").path
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "data")
    with pytest.raises(BundleCorrupt, match="must be a relative path inside the bundle"):
        Bundle.open(path)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle.zip").path
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MANIFEST, "{}")
    with pytest.raises(BundleCorrupt, match=r"manifest\.json is there twice"):
        Bundle.open(path)


def test_a_compressed_member_could_swell_and_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle.zip").path
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bomb", b"0" * 1_000_000, zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleCorrupt, match="bomb is compressed"):
        Bundle.open(path)


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle").path
    graph = path / "graphs" / "float.onnx"
    graph.rename(tmp_path / "elsewhere.onnx")
    graph.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleCorrupt, match=r"graphs/float\.onnx is neither a file nor a directory"):
        Bundle.open(path)


@pytest.mark.parametrize("name", ["graphs/float.onnx", "report.html"])
def test_a_file_that_changes_after_opening_is_found_when_read(tmp_path: Path, name: str) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (bundle.path / name).write_bytes(b"other")
    with pytest.raises(BundleCorrupt, match=name):
        bundle.read(name)


def test_a_file_that_vanishes_after_opening_is_named(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (bundle.path / "graphs" / "float.onnx").unlink()
    with pytest.raises(BundleCorrupt, match=r"graphs/float\.onnx: No such file"):
        bundle.read("graphs/float.onnx")


def test_only_files_of_the_bundle_are_read(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(BundleInvalid, match=r"has no \.\./secret"):
        bundle.read("../secret")


def test_an_older_bundle_is_replaced(tmp_path: Path) -> None:
    for suffix in ("", ".zip"):
        path = tmp_path / f"bundle{suffix}"
        write_bundle(path, version="1.0")
        assert write_bundle(path, version="2.0").manifest.version == "2.0"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle", "bundle.zip"]


@pytest.mark.parametrize("name", ["photos", "photos.zip", "photos.txt"])
def test_what_is_no_bundle_is_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "photos":
        path.mkdir()
        (path / "cat.jpg").write_bytes(b"cat")
    else:
        path.write_bytes(b"cat")
    with pytest.raises(BundleInvalid, match="exists and is no bundle"):
        write_bundle(path)
    assert path.is_dir() or path.read_bytes() == b"cat"


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_full_disk_leaves_the_older_bundle_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"bundle{suffix}"
    digest = write_bundle(path, version="1.0").digest

    def full(descriptor: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(path, version="2.0")
    assert Bundle.open(path).digest == digest
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_move_that_fails_puts_the_older_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bundle"
    digest = write_bundle(path, version="1.0").digest
    rename = type(path).rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_bundle(path, version="2.0")
    assert Bundle.open(path).digest == digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["../evil", "/absolute", "manifest.json", "report.json", "SHA256SUMS"])
def test_a_writer_takes_no_path_that_is_not_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=r"relative path|already in the bundle"):
        BundleWriter().add(name, b"")


def test_a_writer_takes_each_path_once() -> None:
    writer = BundleWriter()
    writer.add("graphs/float.onnx", b"")
    with pytest.raises(ValueError, match="already in the bundle"):
        writer.add("graphs/float.onnx", b"")


def test_a_manifest_of_other_files_is_not_written(tmp_path: Path, directory: Path) -> None:
    manifest = Bundle.open(directory).manifest
    with pytest.raises(ValueError, match="not those that were added"):
        BundleWriter().write(tmp_path / "bundle", manifest, REPORTS)
    assert not (tmp_path / "bundle").exists()


def test_a_report_has_one_of_two_names(tmp_path: Path, directory: Path) -> None:
    bundle = Bundle.open(directory)
    writer = BundleWriter()
    for name in bundle.manifest.files:
        writer.add(name, bundle.read(name))
    with pytest.raises(ValueError, match=r"secrets\.txt"):
        writer.write(tmp_path / "bundle", bundle.manifest, {"secrets.txt": b""})


def test_the_seal_covers_the_whole_archive(archive: Path) -> None:
    assert archive.read_bytes()[-71:-64] == ZIP_SEAL
