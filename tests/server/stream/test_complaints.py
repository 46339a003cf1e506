"""Frames that went wrong, in the log: with the reason, and not a line for each."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from protos.monocoque.v1.result_pb2 import STATUS_REFUSED, Result
from server.stream.complaints import INTERVAL_NS, Complaints
from tests.server.conftest import Engine, serving
from tests.server.raw_client import camera, frame


def test_a_camera_has_one_line_for_all_that_goes_wrong_within_the_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monocoque.stream")
    complaints = Complaints("stream-7")
    for sequence, now_ns in enumerate([0, 1, INTERVAL_NS - 1, INTERVAL_NS]):
        result = Result(sequence=sequence, reason=f"reason {sequence}").SerializeToString()
        complaints.add("front", "failed", result, now_ns)
    complaints.add("rear", "torn", Result(sequence=9, reason="overwritten").SerializeToString(), 1)
    complaints.add("", "refused", Result(sequence=0, reason="no such camera").SerializeToString(), 1)
    assert [record.getMessage() for record in caplog.records] == [
        "stream-7: frame 0 of front was failed: reason 0",
        "stream-7: frame 3 of front was failed: reason 3 (2 more went wrong since the last line)",
        "stream-7: frame 9 of rear was torn: overwritten",
        "stream-7: frame 0 of a camera that it did not open was refused: no such camera",
    ]


async def test_the_log_has_the_reason_that_the_result_has(
    bundle_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "monocoque.stream")
    async with serving(bundle_path, engine.open) as running:
        stream = running.stream()
        opened = await stream.open([camera()])
        for sequence in (1, 2):
            await stream.send(frame(sequence, data=b"too short"))
        answers = await stream.results(2)
        assert [answer.status for answer in answers] == [STATUS_REFUSED] * 2
        said = f"{opened.stream_id}: frame 1 of front was refused: {answers[0].reason}"
        await running.until(lambda: bool(caplog.records))
        await stream.send(frame(3))
        await stream.results(1)
    assert [record.getMessage() for record in caplog.records if record.name == "monocoque.stream"] == [said]
