"""How far a build is, from TensorRT's progress monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.tensorrt.api import TensorRT

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, its finished steps and its steps. Phases nest; several may be open at once."""


class Monitor:
    """Hands a build's steps to a function, and stops the build when the function raises.

    Attributes:
        interrupt: What the function raised. It must not travel through C++: raise it after the build.
    """

    def __init__(self, progress: Progress) -> None:
        self.interrupt: BaseException | None = None
        self._progress = progress
        self._steps: dict[str, int] = {}

    def adapter(self, tensorrt: TensorRT) -> Any:  # noqa: ANN401 - an IProgressMonitor of either library
        """An `IProgressMonitor` of the library that reports here."""
        monitor = self

        def phase_start(_self: object, name: str, _parent: str | None, steps: int) -> None:
            monitor._steps[name] = steps
            monitor._tell(name, 0)

        def step_complete(_self: object, name: str, step: int) -> bool:
            monitor._tell(name, step + 1)
            return monitor.interrupt is None

        def phase_finish(_self: object, name: str) -> None:
            monitor._tell(name, monitor._steps.get(name, 0))

        functions = {"phase_start": phase_start, "step_complete": step_complete, "phase_finish": phase_finish}
        return type("MonocoqueProgress", (tensorrt.module.IProgressMonitor,), functions)()

    def _tell(self, name: str, step: int) -> None:
        if self.interrupt is not None:
            return
        try:
            self._progress(name, step, self._steps.get(name, 0))
        except BaseException as error:
            self.interrupt = error
