"""Offline: a trained model in, a verified engine bundle out. `python -m build_engine build MODEL -o BUNDLE`.

`load → fuse → quantize (or FP16) → compile → verify → bundle`, each a function from one ONNX model to the next.
"""

import engine  # noqa: F401 - ONNX Runtime's usage reports are off before anything here loads it
