"""Who says what lower precision costs: a metric on labelled data, or agreement with the float graph."""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from build_engine import accuracy
from build_engine.accuracy import Accuracy, NotFinite
from build_engine.errors import BuildError
from build_engine.graph import Tensors
from build_engine.progress import Progress, Silent
from build_engine.quantize.candidate import Candidate, origin
from build_engine.quantize.losing import Losing
from build_engine.quantize.outputs import FAINT, cosine, parts
from build_engine.quantize.store import Measured, Store, digest
from build_engine.session import Session
from engine.cpu import cpu_name
from engine.detection_agreement import DetectionAgreement
from engine.manifest import DetectionPostprocessing

LESS_IS_BETTER = ("error", "loss", "mae", "mse", "rmse", "perplexity", "fpr", "fnr", "wer", "cer")
"""A figure one of whose words is one of these is better when it is smaller; all others when they are larger."""
SCORE_MARGIN = 0.05
REFERENCE = "float"
NOT_FINITE = "not finite"
ROUNDING = 1e-6
"""Points that sums in double precision may be off."""
AT_LEAST = "at least: "
"""Begins the name of a figure whose points are lost for certain, where judging stopped at that."""


@dataclass(frozen=True)
class Metric:
    """The user's judge.

    Attributes:
        name: `package.module:function`.
        function: Takes `run(batch) -> outputs by name`, returns numbers by name.
        arguments: Keyword arguments for it.
        input: Name of the input that it feeds.
    """

    name: str
    function: Callable[..., Mapping[str, float]]
    arguments: Mapping[str, Any]
    input: str

    def identity(self) -> str:
        """Changes when the metric, its arguments or the file that defines it do."""
        function = self.function.func if isinstance(self.function, functools.partial) else self.function
        module = sys.modules.get(function.__module__)
        source = inspect.getsourcefile(module) if module else None
        code = Path(source).read_bytes() if source and Path(source).is_file() else b""
        given = repr(self.function.keywords) if isinstance(self.function, functools.partial) else ""
        return digest(self.name, given, json.dumps(dict(self.arguments), sort_keys=True, default=str), code)


@dataclass(frozen=True)
class Judgement:
    """What a graph costs.

    Attributes:
        figures: What was measured, by name.
        drop: Points lost in the figure that lost most; infinite where outputs are not finite.
        worst: That figure.
        seconds: How long it took.
        complete: Whether every sample was judged; else more than what was enough was lost before, and `drop` is what
            is lost at least.
    """

    figures: Mapping[str, float]
    drop: float
    worst: str
    seconds: float
    complete: bool = True


class Judge:
    """Judges graphs beside the float graph, and remembers.

    Points are what users of a metric call so: of a share between 0 and 1, hundredths; of any other figure, per cent of
    what the float graph reaches. A figure that improves loses nothing. Without a metric, agreement is judged: the
    cosine of float outputs (scores apart from coordinates, see `outputs`), the share of equal elements of integer
    ones, what a change of top-1 lets expect, F1 of detections.

    Args:
        model: The float graph.
        samples: Inputs on which graphs are compared without a metric.
        postprocessing: For detectors.
        metric: The user's; None judges agreement.
        store: Where measurements are kept.
        progress: Told what takes long.

    Attributes:
        reference: The metric's figures for the float graph; empty without one.
        seconds: Time that judging the float graph took.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        samples: Sequence[Tensors],
        postprocessing: DetectionPostprocessing | None,
        metric: Metric | None,
        store: Store,
        progress: Progress,
    ) -> None:
        self._samples, self._postprocessing, self._metric = samples, postprocessing, metric
        self._decoded = DetectionAgreement(postprocessing, SCORE_MARGIN).names if postprocessing else frozenset[str]()
        self._store = store
        reference = Candidate.of(REFERENCE, model)
        words = [onnxruntime.__version__, cpu_name(), repr(LESS_IS_BETTER), str(SCORE_MARGIN), str(FAINT)]
        if metric:
            self._identity = digest(*words, metric.identity())
        else:
            said = postprocessing.model_dump_json() if postprocessing else ""
            self._identity = digest(*words, said, origin(model, samples))
        self.reference: Mapping[str, float] = {}
        self._expected: list[Tensors] = []
        if metric:
            with progress.step("Judging the float graph"):
                known = self._measured(reference)
            self.reference, self.seconds = known.figures, known.seconds
        else:
            started = time.perf_counter()
            session = Session(reference.data, threads=0)
            self._expected = [session.run(sample) for sample in samples]
            for outputs in self._expected:
                accuracy.check_finite(REFERENCE, outputs)
            self.seconds = time.perf_counter() - started

    @property
    def says(self) -> str:
        """What is judged, in words."""
        if self._metric:
            return f"{self._metric.name} ({', '.join(self.reference)})"
        return f"agreement with FP32 on {len(self._samples)} samples"

    def __call__(self, candidate: Candidate, enough: float = math.inf) -> Judgement:
        """Judge a graph.

        Args:
            candidate: The graph.
            enough: Points; agreement is judged no further once more are lost whatever the other samples bring.

        Raises:
            BuildError: The metric raises, or returns something else than finite numbers by name.
        """
        known = self._measured(candidate, enough)
        figures = known.figures
        if bound := _bound(figures):
            return Judgement({}, *bound, known.seconds, complete=False)
        if NOT_FINITE in figures:
            what = "a figure of the metric that is no finite number" if self._metric else "outputs that are not finite"
            return Judgement({}, math.inf, what, known.seconds)
        if self._metric:
            missing = [one for one in self.reference if one not in figures]
            if missing:
                raise BuildError(
                    f"the metric returned no {', '.join(missing)} for {candidate.name}, but did for the float graph",
                    remedy="return the same figures for every graph",
                )
            drops = {one: points_lost(one, base, figures[one]) for one, base in self.reference.items()}
        else:
            drops = {one: 100 * (1 - value) for one, value in figures.items()}
        worst = max(drops, key=lambda one: drops[one], default="nothing")
        return Judgement(figures, max(0.0, drops.get(worst, 0.0)), worst, known.seconds)

    def _measured(self, candidate: Candidate, enough: float = math.inf) -> Measured:
        key = digest("judged", self._identity, candidate.name, candidate.identity)
        return self._store.measured_once(
            key,
            lambda: self._measure(candidate.name, candidate.data, enough),
            lambda figures: (bound := _bound(figures)) is None or bound[0] > enough,
        )

    def _measure(self, name: str, data: bytes, enough: float) -> Mapping[str, float]:
        try:
            if self._metric:
                one = self._metric
                return accuracy.evaluate(one.function, one.arguments, name, data, one.input, Silent())
            session = Session(data, threads=0)
            actual: list[Tensors] = []
            losing = Losing(self._expected, self._decoded) if math.isfinite(enough) else None
            for sample in self._samples:
                actual.append(session.run(sample))
                if losing and (lost := losing.add(actual[-1]))[0] > enough + ROUNDING:
                    return {f"{AT_LEAST}{lost[1]}": lost[0]}
            found = accuracy.compare(name, "fp32", self._expected, actual, self._postprocessing, SCORE_MARGIN)
            return agreement(found, self._expected, actual)
        except NotFinite:
            if name == REFERENCE:
                raise
            return {NOT_FINITE: 1.0}


def _bound(figures: Mapping[str, float]) -> tuple[float, str] | None:
    """Points that are lost at least, and the figure, where judging stopped at that."""
    return next(
        ((points, one.removeprefix(AT_LEAST)) for one, points in figures.items() if one.startswith(AT_LEAST)), None
    )


def points_lost(name: str, base: float, value: float) -> float:
    """Points by which a figure is worse than the float graph's; negative where it is better."""
    words = name.lower().replace("-", "_").split("_")
    worse = value - base if any(word in LESS_IS_BETTER for word in words) else base - value
    return 100 * worse if 0 <= base <= 1 else 100 * worse / abs(base)


def agreement(found: Accuracy, expected: Sequence[Tensors], actual: Sequence[Tensors]) -> dict[str, float]:
    """What stands in for a metric where there are no labels: shares of 1 by name."""
    figures: dict[str, float] = {}
    for output in found.outputs:
        if output.kind == "integer":
            figures[f"{output.name}: equal"] = output.agreement
            continue
        wanted, given = accuracy.joined(expected, output.name), accuracy.joined(actual, output.name)
        if wanted.shape != given.shape:
            figures[f"{output.name}: equal length"] = 0.0
            continue
        for part, (a, b) in parts(wanted, given).items():
            figures[f"{output.name}{part}: cosine"] = cosine(a, b)
        if output.expected_drop is not None:
            figures[f"{output.name}: expected top-1"] = 1 - output.expected_drop
    if found.detections_f1 is not None:
        figures["detections: F1"] = found.detections_f1
    if found.distances is not None:
        figures["distances"] = found.distances
    return figures
