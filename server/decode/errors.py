"""What decoders raise."""

from __future__ import annotations


class DecodeFailed(Exception):
    """The pixel bytes are not what their header says."""
