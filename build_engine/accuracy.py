"""What a graph of lower precision answers, beside what the float graph answers."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from build_engine.errors import BuildError
from build_engine.graph import Tensors
from build_engine.progress import Progress
from build_engine.session import Session
from engine.detection_agreement import DetectionAgreement
from engine.manifest import DetectionPostprocessing, Precision, Preprocessing
from engine.preprocess import resize_into
from engine.reference import equal_share, l2_agreement

Run = Callable[[npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]
"""A network as a metric sees it: a batch in, outputs by name."""


@dataclass(frozen=True)
class OutputAgreement:
    """One output of a graph beside the float graph's, over all samples.

    Attributes:
        name: The output.
        kind: `float` or `integer`.
        agreement: Of a float output 1 less the relative L2 error, of an integer one the share of equal elements.
        cosine: Cosine of the two, for float outputs.
        max_difference: Largest absolute difference; None where the outputs differ in length.
        top1: Share of samples (or places) whose largest class is the float graph's, for outputs that score classes.
        expected_drop: What those that differ would cost in accuracy if the float graph's own probabilities are right:
            its probability of its class less its probability of the other graph's, on average. A toss-up that falls
            the other way costs next to nothing.
    """

    name: str
    kind: str
    agreement: float
    cosine: float | None
    max_difference: float | None
    top1: float | None = None
    expected_drop: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """How one graph did.

    Attributes:
        graph: Which graph.
        precision: Its precision.
        outputs: Agreement per output; for detectors without the lists, which are compared as detections.
        detections_f1: Detections matched with the float graph's (class, IoU >= 0.5), for detectors.
        distances: 1 less the mean relative difference of matched distances, where there are any.
        metric: What the user's metric says, by name.
    """

    graph: str
    precision: Precision
    outputs: tuple[OutputAgreement, ...]
    detections_f1: float | None = None
    distances: float | None = None
    metric: dict[str, float] = field(default_factory=dict)


def compare(
    graph: str,
    precision: Precision,
    expected: Sequence[Tensors],
    actual: Sequence[Tensors],
    postprocessing: DetectionPostprocessing | None,
    score_margin: float = 0.0,
) -> Accuracy:
    """Compare a graph's outputs with the float graph's on the same samples.

    Args:
        graph: Its name.
        precision: Its precision.
        expected: The float graph's outputs, per sample.
        actual: This graph's.
        postprocessing: For detectors: their lists are compared as detections.
        score_margin: A detection whose score is this near the threshold may be there or not.

    Raises:
        NotFinite: An output holds a NaN or an infinity where the float graph's does not.
    """
    decoded = DetectionAgreement(postprocessing, score_margin) if postprocessing else None
    outputs = []
    for name in expected[0]:
        if decoded and name in decoded.names:
            continue  # a list of detections: two in the other order are no error
        wanted, given = joined(expected, name), joined(actual, name)
        if wanted.shape != given.shape:  # a list of another length
            outputs.append(OutputAgreement(name, "integer" if wanted.dtype.kind in "biu" else "float", 0.0, None, None))
            continue
        if wanted.dtype.kind in "biu":
            difference = np.abs(given.astype(np.float64) - wanted.astype(np.float64))
            share = equal_share(given, wanted)
            outputs.append(OutputAgreement(name, "integer", share, None, float(difference.max(initial=0))))
            continue
        if np.isfinite(wanted).all():
            check_finite(graph, {name: given})
        a, b = wanted.astype(np.float64).ravel(), given.astype(np.float64).ravel()
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        outputs.append(
            OutputAgreement(
                name,
                "float",
                l2_agreement(given, wanted),
                float(a @ b) / norm if norm else None,
                float(np.abs(a - b).max(initial=0)),
                *_classes(wanted, given),
            )
        )
    if decoded is None:
        return Accuracy(graph, precision, tuple(outputs))
    for want, give in zip(expected, actual, strict=True):
        decoded.add(dict(give), dict(want))
    return Accuracy(graph, precision, tuple(outputs), decoded.f1, decoded.distances)


def joined(entries: Sequence[Tensors], name: str) -> npt.NDArray[Any]:
    """One output over all samples: along the batch, or flat where its size depends on what a sample shows."""
    arrays = [entry[name] for entry in entries]
    if len({array.shape[1:] for array in arrays}) > 1 or arrays[0].ndim == 0:
        arrays = [array.ravel() for array in arrays]
    return np.concatenate(arrays)


class NotFinite(BuildError):
    """A graph answers a NaN or an infinity."""


def check_finite(graph: str, outputs: Tensors) -> None:
    """Check a graph's outputs.

    Raises:
        NotFinite: One of them holds a NaN or an infinity.
    """
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            share = 1 - float(np.isfinite(array).mean())
            raise NotFinite(
                f"output {name!r} of graph {graph} holds a NaN or an infinity in {100 * share:.3g} % of its values on "
                "the frames of --calibration-data, or without it on random inputs",
                remedy="where the float graph does so too, the model or its input scale (--mean, --std) is at fault; "
                "else add --calibration-data, by which layers that overflow FP16 are found and stay in FP32, or build "
                "with --precision bf16 or fp32",
            )


def _classes(wanted: npt.NDArray[Any], given: npt.NDArray[Any]) -> tuple[float | None, float | None]:
    """Top-1 agreement and the drop that it lets expect, of an output that scores classes along its last axis.

    That is `(N, classes)`, or anything whose last axis holds probabilities that sum to 1.
    """
    if wanted.ndim < 2 or wanted.shape[-1] < 2 or not wanted.size:
        return None, None
    shares = wanted.astype(np.float64)
    probable = bool((shares >= -1e-6).all() and np.allclose(shares.sum(axis=-1), 1.0, atol=1e-2))
    if not probable and wanted.ndim != 2:
        return None, None
    if not probable:
        powers = np.exp(shares - shares.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
    ours, theirs = wanted.argmax(axis=-1)[..., None], given.argmax(axis=-1)[..., None]
    lost = np.take_along_axis(shares, ours, -1) - np.take_along_axis(shares, theirs, -1)
    return float((ours == theirs).mean()), float(lost.mean())


def load_metric(given: str) -> Callable[..., Mapping[str, float]]:
    """Find `package.module:function`.

    Raises:
        BuildError: It does not exist.
    """
    module, separator, name = given.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        if not separator:
            raise AttributeError("no ':' in the name")
        function: Callable[..., Mapping[str, float]] = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises when it is imported
        what = "" if isinstance(error, (ImportError, AttributeError, ValueError)) else f"{type(error).__name__}: "
        raise BuildError(
            f"no metric {given!r}: {what}{error}",
            remedy="name package.module:function; it takes run(batch) -> outputs and returns numbers by name",
        ) from None
    return function


def with_preprocessing(
    function: Callable[..., Mapping[str, float]], preprocessing: Preprocessing | None
) -> Callable[..., Mapping[str, float]]:
    """Give a metric that asks for it, by a parameter `preprocess`, what a server does to a camera's frame.

    `preprocess(frame)` takes a frame `(H, W, C)` uint8 of any size, in the network's colour order, and returns the
    network's input `(1, height, width, C)`: so full-size frames are judged as they will be seen.
    """
    if preprocessing is None or "preprocess" not in inspect.signature(function).parameters:
        return function
    return functools.partial(function, preprocess=Preprocess(preprocessing))


@dataclass(frozen=True)
class Preprocess:
    """What a server does to a frame `(H, W, C)`: the network's input `(1, height, width, C)`."""

    spec: Preprocessing

    def __call__(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bring a frame to the network's size."""
        out = np.empty((1, self.spec.height, self.spec.width, self.spec.channels), np.uint8)
        resize_into(frame, self.spec, out[0])
        return out


def evaluate(
    function: Callable[..., Mapping[str, float]],
    arguments: Mapping[str, Any],
    graph: str,
    data: bytes,
    input_name: str,
    progress: Progress,
) -> dict[str, float]:
    """Let the user's metric judge a graph.

    Raises:
        BuildError: The metric raises, or returns something else than numbers by name.
        NotFinite: One of the numbers is a NaN or an infinity.
    """
    session = Session(data, threads=0)

    def run(batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        return session.run({input_name: batch})

    remedy = "call it in Python first; it takes run(batch) -> outputs by name, and returns numbers by name"
    with progress.step(f"Evaluating {graph}"):
        try:
            answer = function(run, **arguments)
        except BuildError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's metric raises
            text = f"the metric failed on graph {graph}: {type(error).__name__}: {error}"
            raise BuildError(text, remedy=remedy) from error
    try:
        result = {str(name): float(value) for name, value in answer.items()}
    except (AttributeError, TypeError, ValueError):
        result = {}
    if not result:
        text = f"the metric returned {_short(answer)} on graph {graph}, not one number or more by name"
        raise BuildError(text, remedy=remedy)
    if wrong := [name for name, value in result.items() if not math.isfinite(value)]:
        raise NotFinite(
            f"the metric returned no finite number for {', '.join(wrong)} on graph {graph}",
            remedy="leave a figure out where it is not defined",
        )
    return result


def _short(value: object) -> str:
    words = repr(value)
    return words if len(words) <= 100 else f"{words[:97]}..."
