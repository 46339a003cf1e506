"""Pictures of results: annotated cameras, a bird's-eye view, and both in one mosaic."""

from client.draw.annotate import annotate
from client.draw.birdseye import birdseye
from client.draw.mosaic import mosaic

__all__ = ["annotate", "birdseye", "mosaic"]
