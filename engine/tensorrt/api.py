"""Which TensorRT a target uses, and what changed between 10.3, 10.16, 11 and TensorRT-RTX."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from engine.errors import RuntimeUnavailable
from engine.manifest import Target

OLDEST = (10, 3)
"""First TensorRT with everything used here (JetPack 6.1 ships it)."""

_INSTALL: dict[str, str] = {
    "rtx": "pip install 'monocoque[rtx]'",
    "gpu": "pip install 'monocoque[tensorrt]', or run inside docker/gpu",
    "jetson-orin": "use JetPack's own: apt install python3-libnvinfer, or run inside docker/jetson",
    "jetson-thor": "use JetPack's own: apt install python3-libnvinfer, or run inside docker/jetson",
    "drive-orin": "use DriveOS's own package of the Python bindings",
    "drive-thor": "use DriveOS's own package of the Python bindings",
}


@dataclass(frozen=True)
class TensorRT:
    """One of NVIDIA's two libraries, as imported.

    Attributes:
        module: `tensorrt` or `tensorrt_rtx`.
        backend: `tensorrt` or `tensorrt-rtx`, as in `RuntimeDescription`.
        version: Full library version, for example `10.3.0.30`.
    """

    module: Any
    backend: str
    version: str

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{'TensorRT-RTX' if self.compiles_without_device else 'TensorRT'} {self.version}"

    @property
    def compiles_without_device(self) -> bool:
        """Whether plans are made without a GPU, and fit every GPU of the compute capabilities they name."""
        return self.backend == "tensorrt-rtx"

    def member(self, enum: str, name: str) -> Any:  # noqa: ANN401 - a binding's enum
        """A member of an enum by its name, since the integers behind names move between versions.

        Returns:
            The member, or None where this version has none of that name.
        """
        return getattr(getattr(self.module, enum, None), name, None)

    def network_flags(self) -> int:
        """Flags of `Builder.create_network`: strongly typed, so the precision is the graph's.

        TensorRT 10 makes it optional at bit 1, TensorRT 11 and RTX have it at bit 0, always on. EXPLICIT_BATCH is
        ignored by TensorRT 10 and gone from 11.
        """
        flag = self.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
        return 0 if flag is None else 1 << int(flag)


def load_tensorrt(target: Target) -> TensorRT:
    """Import the library that serves a target.

    Args:
        target: Any target but `cpu`.

    Raises:
        RuntimeUnavailable: It is not installed, does not load, or is too old; the message says what to install.
    """
    name = "tensorrt_rtx" if target == "rtx" else "tensorrt"
    install = _INSTALL.get(target, "choose one of the targets " + ", ".join(_INSTALL))
    if target not in _INSTALL:
        raise RuntimeUnavailable(f"target {target!r} does not use TensorRT", remedy=install)
    try:
        module = importlib.import_module(name)
        version = str(module.__version__)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise RuntimeUnavailable(
            f"target {target!r} needs the Python module {name!r}, which does not load: {error}", remedy=install
        ) from error
    if name == "tensorrt" and _release(version) < OLDEST:
        raise RuntimeUnavailable(
            f"tensorrt {version} is too old, this needs {'.'.join(map(str, OLDEST))} or newer", remedy=install
        )
    return TensorRT(module, name.replace("_", "-"), version)


def _release(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return int(major), int(minor) if minor.isdigit() else 0
