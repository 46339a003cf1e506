"""Where a registry cannot be reached, the foreign clients are left out with a word that says so."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.server.open_inference import foreign

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm here (Debian: apt-get install npm)")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Where npm looks for packages, with nothing of an earlier run at hand: nobody answers there."""
    bound = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{bound.getsockname()[1]}/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setattr(foreign, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(foreign, "INSTALL_SECONDS", 8)
    return bound


def test_a_registry_that_refuses_is_told_in_npm_s_words(registry: socket.socket) -> None:
    registry.close()
    with pytest.raises(pytest.skip.Exception, match=r"package\.json could not be installed: (.|\n)*ECONNREFUSED"):
        foreign.node_packages()


def test_a_registry_that_says_nothing_is_not_waited_for(registry: socket.socket) -> None:
    with (
        registry,
        pytest.raises(pytest.skip.Exception, match=r"package\.json could not be installed: no answer in 8 s"),
    ):
        foreign.node_packages()
    assert list(foreign.INSTALLED.iterdir()) == []
