"""What the demo says when it cannot go on."""

from __future__ import annotations


class DemoError(Exception):
    """A step failed. The message says which, why, and what to do next."""
