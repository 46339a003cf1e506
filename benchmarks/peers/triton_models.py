"""Models for Triton's Python backend: a folder of its repository each."""

from __future__ import annotations

import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent

RUNTIME_CONFIG = """\
name: "repvgg"
backend: "python"
max_batch_size: 0
input [{{ name: "image" data_type: TYPE_FP32 dims: [1, 3, 224, 224] }}]
output [{{ name: "logits" data_type: TYPE_FP32 dims: [1, 1000] }}]
parameters {{ key: "model_path" value: {{ string_value: "{model}" }} }}
"""
FRAME_CONFIG = """\
name: "frame"
backend: "python"
max_batch_size: 0
input [{{ name: "frame" data_type: TYPE_UINT8 dims: [{height}, {width}, 3] }}]
output [{{ name: "corner" data_type: TYPE_UINT8 dims: [1, 8, 3] }}]
"""


def runtime_entry(folder: Path, model: Path) -> Path:
    """ONNX Runtime on the request's own array.

    Args:
        folder: For the repository.
        model: The ONNX file.
    """
    return _entry(folder / "repvgg", RUNTIME_CONFIG.format(model=model.resolve()), "triton_model.py", "peer_session.py")


def frame_entry(folder: Path, width: int, height: int) -> Path:
    """The first pixels of a frame.

    Args:
        folder: For the repository.
        width: Columns of the frame.
        height: Rows of the frame.
    """
    return _entry(folder / "frame", FRAME_CONFIG.format(width=width, height=height), "triton_frame.py")


def _entry(entry: Path, config: str, code: str, *beside: str) -> Path:
    (entry / "1").mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / code, entry / "1" / "model.py")
    for name in beside:
        shutil.copy(HERE / name, entry / "1" / name)
    (entry / "config.pbtxt").write_text(config)
    return entry
