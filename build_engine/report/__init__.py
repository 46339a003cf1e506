"""What a build found out, for a machine (`report.json`) and for a person (`report.html`)."""

from __future__ import annotations

import json

from build_engine.outcome import Built
from build_engine.report.contents import contents
from build_engine.report.html import page
from engine.manifest import Manifest


def render(built: Built, manifest: Manifest) -> dict[str, bytes]:
    """Both reports, by file name."""
    facts = json.loads(json.dumps(contents(built, manifest)))  # the page sees what a reader of the JSON sees
    return {
        "report.json": (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode(),
        "report.html": page(facts).encode(),
    }
