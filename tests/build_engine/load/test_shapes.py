from __future__ import annotations

import pytest

from build_engine.errors import BuildError
from build_engine.load.shapes import InputShape, parse_shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1,3,384,640", InputShape(None, (1, 3, 384, 640))),
        ("1x3x384x640", InputShape(None, (1, 3, 384, 640))),
        ("image=1,3,8,8", InputShape("image", (1, 3, 8, 8))),
        ("ids=1,77:int64", InputShape("ids", (1, 77), "int64")),
    ],
)
def test_what_a_shape_means(text: str, shape: InputShape) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "a,b", "1,-3", "1,3:floaty", "1,0,3", "image="])
def test_what_is_no_shape_is_said_with_an_example(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        parse_shape(text)
    assert repr(text) in caught.value.message
