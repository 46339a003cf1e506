from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from build_engine.errors import BuildError
from build_engine.frames import read_samples
from build_engine.progress import Silent
from engine.manifest import FreeDimension, Preprocessing
from engine.preprocess import resize_into
from engine.tensors import TensorSpec
from tests.build_engine.networks import HEIGHT, WIDTH

SPECS = (TensorSpec(name="image", dtype="uint8", shape=("batch", HEIGHT, WIDTH, 3)),)
CAMERA = Preprocessing(input="image", color="rgb", width=WIDTH, height=HEIGHT)
TENSORS = (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_frames_become_what_the_server_would_make_of_them(frames_folder: Path) -> None:
    samples = read_samples(frames_folder, SPECS, CAMERA, 100, Silent())
    image = cv2.cvtColor(cv2.imread(str(frames_folder / "003.png")), cv2.COLOR_BGR2RGB)
    wanted = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    resize_into(np.asarray(image, np.uint8), CAMERA, wanted)
    assert samples.names[3] == "003.png"
    assert np.array_equal(samples.inputs[3]["image"][0], wanted)


def test_fewer_are_taken_evenly(frames_folder: Path) -> None:
    samples = read_samples(frames_folder, SPECS, CAMERA, 4, Silent())
    assert samples.names == ("000.png", "010.png", "021.png", "031.png")
    assert len(samples.spread(2)) == 2


def test_unreadable_files_are_skipped_counted_and_named_up_to_a_limit(frames_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(frames_folder, tmp_path / "frames"))
    (folder / "010.png").write_bytes(b"broken")
    noting = Noting()
    samples = read_samples(folder, SPECS, CAMERA, 100, noting)
    assert samples.skipped == ("010.png",) and len(samples.inputs) == 31
    assert any("010.png" in note for note in noting.notes)
    for number in range(5):
        (folder / f"00{number}.png").write_bytes(b"broken")
    with pytest.raises(BuildError, match="6 of 32 files"):
        read_samples(folder, SPECS, CAMERA, 100, Silent())


def test_too_few_and_identical_samples_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((5, 4), np.float32))
    noting = Noting()
    read_samples(tmp_path, TENSORS, None, 10, noting)
    assert any("only 5 calibration samples" in note for note in noting.notes)
    assert any("identical" in note for note in noting.notes)
    assert any("5 of 5 calibration samples hold one value throughout" in note for note in noting.notes)


def test_the_digest_depends_on_every_value_and_on_the_order(tmp_path: Path) -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    digests = set()
    for number, array in enumerate((values, values[::-1], values + 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        np.save(folder / "a.npy", array)
        digests.add(read_samples(folder, TENSORS, None, 10, Silent()).sha256())
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.ones((1, 4), np.float32)}, "has no array x; it has y"),
        ({"x": np.ones((1, 5), np.float32)}, r"x is float32\[1, 5\], wanted is float32\['batch', 4\]"),
        ({"x": np.ones((1, 4), np.float64)}, "x is float64"),
        ({"x": np.float32([[1, 2, np.nan, 4]])}, "x holds a NaN"),
        ({"x": np.ones((0, 4), np.float32)}, "x holds nothing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BuildError, match=says):
        read_samples(tmp_path, TENSORS, None, 10, Silent())


def test_arrays_of_a_size_that_is_not_served_are_refused(tmp_path: Path) -> None:
    specs = (TensorSpec(name="x", dtype="float32", shape=("batch", "length")),)
    np.savez(tmp_path / "a.npz", x=np.ones((1, 7), np.float32))
    for largest, fits in ((7, True), (6, False)):
        sizes = {"length": FreeDimension(smallest=2, usual=4, largest=largest)}
        if fits:
            assert len(read_samples(tmp_path, specs, None, 10, Silent(), sizes).inputs) == 1
        else:
            with pytest.raises(BuildError, match=r"x has 7 of dimension 'length', served are 2 to 6") as caught:
                read_samples(tmp_path, specs, None, 10, Silent(), sizes)
            assert "--dimension length=2:4:6" in caught.value.remedy


def test_images_for_a_model_of_tensors_ask_for_mean_and_std(frames_folder: Path) -> None:
    with pytest.raises(BuildError) as caught:
        read_samples(frames_folder, TENSORS, None, 10, Silent())
    assert "--mean" in caught.value.remedy


@pytest.mark.parametrize("name", ["none", "empty"])
def test_no_data_says_what_to_give(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError):
        read_samples(tmp_path / name, SPECS, CAMERA, 10, Silent())


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BuildError, match="cannot be read"):
        read_samples(tmp_path, TENSORS, None, 10, Silent())


def test_an_archive_that_is_cut_or_pickled_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", x=np.array([{"a": 1}], dtype=object))
    np.savez_compressed(tmp_path / "cut.npz", x=np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32))
    data = bytearray((tmp_path / "cut.npz").read_bytes())
    data[60:80] = bytes(20)
    (tmp_path / "cut.npz").write_bytes(data)
    with pytest.raises(BuildError, match=r"2 of 2 files .* cannot be read: cut.npz, pickled.npz"):
        read_samples(tmp_path, TENSORS, None, 10, Silent())


def test_an_image_that_claims_more_pixels_than_opencv_takes_is_skipped(frames_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    shutil.copytree(frames_folder, folder)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert read_samples(folder, SPECS, CAMERA, 100, Silent()).skipped == ("bomb.png",)
