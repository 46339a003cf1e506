"""One batch, without threads or a network: what happens to the entries when some of them leave early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.allocate import allocate
from engine.bundle import Bundle
from engine.manifest import TensorPostprocessing
from engine.slots import RegionTable
from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1.result_pb2 import Result
from server.engines.pipeline import Pipeline
from server.frames import CameraKey, Frame, OpenCamera
from server.host.process_memory import ProcessMemory
from server.observe.ledger import Ledger
from server.observe.metrics import Metrics
from server.stream.answers import AnswerWriter, EngineFacts
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine
from tests.server.stream.test_watch import NoOwner


class Ticks:
    """A clock that advances by one each time it is read."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


@contextlib.contextmanager
def pipeline_of(path: Path, engine: Engine, clock: Ticks, max_batch: int = 4) -> Iterator[Pipeline]:
    bundle = Bundle.open(path)
    regions = RegionTable()
    runtime = engine.open(bundle, regions)
    slots = allocate(runtime.describe(), regions, max_batch)
    writer = AnswerWriter(EngineFacts("0" * 64, labels=("dark", "bright")), ProcessMemory(clock))
    preprocessing = bundle.manifest.preprocessing
    assert preprocessing is not None
    yield Pipeline(bundle.manifest, preprocessing, runtime, [slots], max_batch, writer, clock)
    regions.close()


def frame(value: int, deadline_ns: int | None = None, encoding: int = camera_pb2.ENCODING_RGB8) -> Frame:
    spec = camera_pb2.Camera(id=f"camera-{value}", width=32, height=16, encoding=encoding)  # type: ignore[arg-type]
    camera = OpenCamera(CameraKey("stream", spec.id), spec, NoOwner(), (), Metrics(1).camera("x"))
    header = camera_pb2.FrameHeader(
        camera_id=spec.id,
        sequence=value,
        width=32,
        height=16,
        encoding=encoding,  # type: ignore[arg-type]
    )
    pixels = memoryview(np.full((16, 32, 3), value, np.uint8).tobytes())
    return Frame(camera, header, pixels, Ledger(received=0), deadline_ns=deadline_ns)


def test_a_late_frame_leaves_no_gap_in_the_batch(bundle_path: Path, engine: Engine) -> None:
    clock = Ticks()
    with pipeline_of(bundle_path, engine, clock) as pipeline:
        frames = [frame(10), frame(20, deadline_ns=3), frame(30), frame(40)]
        answers = {answer.frame.header.sequence: answer for answer in pipeline.run(frames)}
    assert {value: answer.status for value, answer in answers.items()} == {10: "ok", 20: "late", 30: "ok", 40: "ok"}
    assert engine.batches == [[10.0, 30.0, 40.0]]
    assert Result.FromString(answers[30].body).batch_size == 3
    assert frames[1].ledger.inferred is None


def test_nothing_is_launched_when_every_frame_is_late(bundle_path: Path, engine: Engine) -> None:
    with pipeline_of(bundle_path, engine, Ticks()) as pipeline:
        answers = pipeline.run([frame(10, deadline_ns=1), frame(20, deadline_ns=1)])
    assert [answer.status for answer in answers] == ["late", "late"]
    assert engine.batches == []


def test_a_frame_that_cannot_be_decoded_costs_the_others_nothing(bundle_path: Path, engine: Engine) -> None:
    with pipeline_of(bundle_path, engine, Ticks()) as pipeline:
        answers = pipeline.run([frame(10), frame(20, encoding=camera_pb2.ENCODING_JPEG), frame(30)])
    assert sorted((answer.frame.header.sequence, answer.status) for answer in answers) == [
        (10, "ok"),
        (20, "failed"),
        (30, "ok"),
    ]
    assert engine.batches == [[10.0, 30.0]]


def test_a_batch_that_fails_fails_for_all_its_frames(bundle_path: Path, engine: Engine) -> None:
    engine.fail = "no luck"
    with pipeline_of(bundle_path, engine, Ticks()) as pipeline:
        answers = pipeline.run([frame(10), frame(20)])
    assert [answer.status for answer in answers] == ["failed", "failed"]
    assert all("no luck" in Result.FromString(answer.body).reason for answer in answers)


@pytest.mark.parametrize("nan", [False, True])
def test_an_engine_without_detections_answers_all_its_outputs(tmp_path: Path, engine: Engine, nan: bool) -> None:
    engine.nan = nan
    bundle = write_bundle(tmp_path / "tensors", postprocessing=TensorPostprocessing())
    with pipeline_of(bundle, engine, Ticks()) as pipeline:
        (answer,) = pipeline.run([frame(10)])
    result = Result.FromString(answer.body)
    assert not result.detections
    names = {tensor.name: (tensor.dtype, tuple(tensor.shape)) for tensor in result.tensors}
    assert names["scores"] == ("float32", (2,))
    assert names["classes"] == ("int64", (2,))
    assert len(names) == 5
    assert result.valid is not nan
    assert result.reason == ("output scores is not finite everywhere" if nan else "")


def test_pixel_bytes_are_let_go_before_the_engine_runs(bundle_path: Path, engine: Engine) -> None:
    one = frame(10)
    held: list[int] = []
    engine.on_launch = lambda: held.append(len(one.pixels))
    with pipeline_of(bundle_path, engine, Ticks()) as pipeline:
        pipeline.run([one])
    assert held == [0]
    assert one.frame_bytes == one.decoded_bytes == 16 * 32 * 3
