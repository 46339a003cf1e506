from __future__ import annotations

import pytest

from build_engine.errors import BuildError
from build_engine.load import parse_source


@pytest.mark.parametrize(
    ("given", "kind", "name"),
    [
        ("folder/net v2.onnx", "onnx", "net-v2"),
        ("net.pt2", "pt2", "net"),
        ("shop.models:detector", "factory", "shop"),
        ("timm:repvgg_a0.rvgg_in1k", "timm", "repvgg_a0.rvgg_in1k"),
    ],
)
def test_the_kinds_are_told_apart(given: str, kind: str, name: str) -> None:
    source = parse_source(given)
    assert (source.kind, source.name) == (kind, name)


def test_weights_alone_are_no_model_and_the_remedy_says_how_to_give_them() -> None:
    with pytest.raises(BuildError) as caught:
        parse_source("best.pt")
    assert "--weights best.pt" in caught.value.remedy


def test_timm_is_the_users_own() -> None:
    from build_engine.load import load_model

    pytest.importorskip("torch")
    try:
        import timm  # noqa: F401
    except ImportError:
        with pytest.raises(BuildError, match="needs the timm library"):
            load_model(parse_source("timm:repvgg_a0"))
