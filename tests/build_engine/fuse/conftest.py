"""Graphs to begin with."""

from __future__ import annotations

import pytest

from tests.build_engine.fuse.graphs import GraphBuilder


@pytest.fixture
def g() -> GraphBuilder:
    return GraphBuilder(("n", 4, 7, 9))
