from __future__ import annotations

from typing import Any


def contents(built: Any, manifest: Any) -> dict[str, Any]:
    return {}
