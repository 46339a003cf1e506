"""Where frames come from: a renderer, a folder, a video file, a camera device, a GStreamer pipeline."""

from client.sources.open import Source, open_source

__all__ = ["Source", "open_source"]
