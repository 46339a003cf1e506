import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import BundleInvalid
from engine.manifest import (
    DetectionPostprocessing,
    FileEntry,
    FreeDimension,
    GraphEntry,
    Manifest,
    PlanEntry,
    Preprocessing,
    bundle_path,
)
from engine.tensors import TensorSpec
from tests.engine.bundles import FEATURES, IMAGES, PROVENANCE
from tests.engine.graphs import HEIGHT, WIDTH

FIELDS = {
    "name": "camera",
    "version": "1.0",
    "inputs": (IMAGES,),
    "outputs": (FEATURES,),
    "max_batch": 4,
    "preprocessing": Preprocessing(input="images", color="rgb", width=WIDTH, height=HEIGHT),
    "graphs": {
        "cpu-int8": GraphEntry(path="graphs/cpu-int8.onnx", precision="int8", targets=("cpu",)),
        "float": GraphEntry(path="graphs/float.onnx", precision="fp32", targets=("cpu", "rtx")),
    },
    "files": {
        "graphs/cpu-int8.onnx": FileEntry(sha256="1" * 64, size_bytes=1),
        "graphs/float.onnx": FileEntry(sha256="2" * 64, size_bytes=2),
    },
    "provenance": PROVENANCE,
}


def manifest(**changes: Any) -> Manifest:
    return Manifest(**(FIELDS | changes))


def test_a_manifest_survives_the_way_to_disk_and_back() -> None:
    assert Manifest.from_bytes(manifest().to_bytes(), "manifest.json") == manifest()
    assert manifest().to_bytes() == Manifest.from_bytes(manifest().to_bytes(), "manifest.json").to_bytes()


def test_the_graph_listed_first_serves_a_target() -> None:
    assert manifest().graph_for("cpu") == "cpu-int8"
    assert manifest().graph_for("rtx") == "float"
    with pytest.raises(BundleInvalid, match="no graph for target 'gpu'; it serves cpu, rtx") as caught:
        manifest().graph_for("gpu")
    assert "--target gpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a manifest"),
        (b"[]", "is not a manifest"),
        (b"\xff\xfe{", "is not a manifest"),
        (b"[" * 100_000, "is not a manifest"),
        (b"{}", "schema version None, this monocoque reads 1"),
        (b'{"schema_version": 2}', "schema version 2"),
        (b'{"schema_version": 1}', "name: Field required"),
    ],
)
def test_what_is_no_manifest_says_why(data: bytes, words: str) -> None:
    with pytest.raises(BundleInvalid, match=words):
        Manifest.from_bytes(data, "manifest.json")


def test_every_fault_is_named_with_its_place() -> None:
    data = json.loads(manifest().to_bytes())
    data["max_batch"] = 0
    data["inputs"][0]["dtype"] = "complex64"
    data["surprise"] = True
    with pytest.raises(BundleInvalid) as caught:
        Manifest.from_bytes(json.dumps(data).encode(), "manifest.json")
    for place in ("max_batch", "inputs.0.dtype", "surprise"):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", ".", "./a", "a/./b", "a//b", "a/", "a\\b", "a\nb", "a\0b"],
)
def test_a_path_stays_inside_the_bundle(path: Path) -> None:
    with pytest.raises(ValueError, match="must be a relative path inside the bundle"):
        bundle_path(path)
    with pytest.raises(ValidationError):
        GraphEntry(path=path, precision="fp32", targets=("cpu",))


def test_sizes_are_in_their_order() -> None:
    sizes = FreeDimension(smallest=2, usual=3, largest=5)
    assert str(sizes) == "2:3:5"
    assert [size for size in range(8) if sizes.holds(size)] == [2, 3, 4, 5]
    for wrong in ({"smallest": 4}, {"usual": 6}, {"usual": 1}, {"smallest": -1}):
        with pytest.raises(ValidationError):
            FreeDimension(**{"smallest": 2, "usual": 3, "largest": 5} | wrong)


def test_a_manifest_of_before_there_was_a_smallest_size_is_read_and_serves_what_it_did() -> None:
    free = TensorSpec(name="features", dtype="float32", shape=("batch", "length"))
    sizes = FreeDimension(smallest=1, usual=2, largest=9)
    data = json.loads(manifest(outputs=(free,), dimensions={"length": sizes}).to_bytes())
    assert data["dimensions"] == {"length": {"smallest": 1, "usual": 2, "largest": 9}}
    del data["dimensions"]["length"]["smallest"]
    read = Manifest.from_bytes(json.dumps(data).encode(), "manifest.json")
    assert (read.smallest, read.largest) == ({"length": 0}, {"length": 9})


@given(st.text(max_size=20))
def test_a_path_that_is_accepted_names_one_place(path: Path) -> None:
    try:
        accepted = bundle_path(path)
    except ValueError:
        return
    parts = accepted.split("/")
    assert accepted == path
    assert all(part not in ("", ".", "..") for part in parts)
    assert "\n" not in path and "\0" not in path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": {}}, "no digest for graphs/cpu-int8.onnx, graphs/float.onnx"),
        ({"reference": ("reference/0.npz",)}, "no digest for reference/0.npz"),
        (
            {"plans": (PlanEntry(path="graphs/float.onnx", graph="absent", target="rtx", key={}),)},
            "plans of unknown graphs: absent",
        ),
        ({"outputs": (FEATURES, FEATURES)}, "two tensors are called features"),
        ({"outputs": (IMAGES,)}, "two tensors are called images"),
        (
            {"preprocessing": Preprocessing(input="frames", color="rgb", width=WIDTH, height=HEIGHT)},
            "preprocessing feeds 'frames', which is no input",
        ),
        (
            {"preprocessing": Preprocessing(input="images", color="gray", width=WIDTH, height=HEIGHT)},
            r"preprocessing makes uint8\['batch', 24, 32, 1\], input 'images' is uint8\['batch', 24, 32, 3\]",
        ),
        (
            {"preprocessing": Preprocessing(input="images", color="rgb", width=HEIGHT, height=WIDTH)},
            "preprocessing makes uint8",
        ),
        (
            {"postprocessing": DetectionPostprocessing(labels=("car",), scores="s", classes="features", boxes="b")},
            "postprocessing reads s, b; outputs are features",
        ),
        ({"name": "../evil"}, "name"),
        ({"graphs": {}}, "graphs"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        manifest(**changes)


@pytest.mark.parametrize("distance", [{"distances": "d"}, {"reference_focal_px": 500.0}])
def test_distances_come_with_their_focal_length(distance: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="given together or not at all"):
        DetectionPostprocessing(labels=("car",), scores="s", classes="c", boxes="b", **distance)


@pytest.mark.parametrize("focal", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_focal_length_is_a_positive_number(focal: float) -> None:
    with pytest.raises(ValidationError):
        DetectionPostprocessing(
            labels=("car",), scores="s", classes="c", boxes="b", distances="d", reference_focal_px=focal
        )


@pytest.mark.parametrize("shape", [(3, "batch"), (0, 3), (-1, 3), (True, 3), (1.5, 3), ("", 3)])
def test_a_shape_has_sizes_and_names_the_batch_first(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        TensorSpec(name="x", dtype="float32", shape=shape)


def test_shapes_at_a_batch_size() -> None:
    assert IMAGES.concrete(3) == (3, HEIGHT, WIDTH, 3)
    assert IMAGES.size_bytes(2) == 2 * HEIGHT * WIDTH * 3
    assert FEATURES.itemsize_bytes == 4
    assert not TensorSpec(name="x", dtype="float32", shape=()).batched
    with pytest.raises(ValueError, match="dimension 'n'"):
        TensorSpec(name="x", dtype="float32", shape=("batch", "n")).concrete(1)
