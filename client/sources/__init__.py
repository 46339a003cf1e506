"""Where frames come from: a renderer, a folder, a video file, a camera device, a GStreamer pipeline."""

from client.sources.open import DEFAULT_FPS, Source, open_source

__all__ = ["DEFAULT_FPS", "Source", "open_source"]
