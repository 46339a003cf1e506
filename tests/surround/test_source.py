import itertools
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest

from surround.source import SourceSpec, open_source, parse_spec


def test_an_empty_specification_takes_the_defaults() -> None:
    assert parse_spec("") == SourceSpec()


def test_every_key_is_read() -> None:
    spec = parse_spec("seed=3, town=suburb,weather=rain,size=320x192,fps=12.5,frames=4,cameras=front_wide+rear_left")
    assert spec == SourceSpec(3, "suburb", "rain", 320, 192, 12.5, ("front_wide", "rear_left"), 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("town=atlantis", "known towns: old_town"),
        ("weather=frogs", "known weathers: clear"),
        ("size=640", "size='640'"),
        ("fps=0", "fps='0'"),
        ("seed=-1", "seed='-1'"),
        ("cameras=roof", "known cameras: front_wide"),
        ("speed=3", "unknown key 'speed'"),
        ("seed", "seed=''"),
    ],
)
def test_a_bad_specification_names_what_is_wrong_and_shows_a_good_one(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="for example seed=7") as error:
        parse_spec(text)
    assert says in str(error.value)


def test_a_source_yields_every_camera_with_its_capture_time() -> None:
    source = open_source("size=160x96,fps=20,frames=3")
    steps = list(source.frames())
    assert [time for time, _ in steps] == [0, 50_000_000, 100_000_000]
    for _, images in steps:
        assert list(images) == [camera.id for camera in source.cameras]
        assert all(image.shape == (96, 160, 3) and image.dtype == np.uint8 for image in images.values())
    assert set(source.truth) == set(images)


def test_a_source_is_repeatable_and_moves() -> None:
    a, b = (list(itertools.islice(open_source("size=160x96,seed=4").frames(), 3)) for _ in range(2))
    for (_, left), (_, right) in zip(a, b, strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in left)
    assert not np.array_equal(a[0][1]["front_wide"], a[2][1]["front_wide"])


def test_the_entry_point_opens_the_source() -> None:
    found = [entry for entry in entry_points(group="monocoque.frame_sources") if entry.name == "surround"]
    assert found
    assert found[0].load() is open_source


def test_the_source_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import surround.source, surround.evaluate, surround.__main__\n"
        "next(surround.source.open_source('size=64x48').frames())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
