"""How steady answers are, and deadlines that were missed."""

from __future__ import annotations

from protos.monocoque.v1.result_pb2 import STATUS_LATE, STATUS_OK
from server.observe.metrics import AgeTrack
from tests.server.conftest import Engine, Running
from tests.server.observe.test_metrics import samples
from tests.server.raw_client import camera, frame


def test_jitter_is_that_of_rfc_3550() -> None:
    track = AgeTrack()
    for age_ns in (1600, 1600, 0):
        track.observe(age_ns, 7)
    assert (track.jitter_ns, track.uncertainty_ns) == (100.0, 7)


async def test_a_missed_deadline_is_counted(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    await stream.open([camera("front"), camera("rear")])
    await stream.send(frame(1, "rear"))
    await engine.entered()
    await stream.send(frame(1, "front", max_age_ns=1))
    await running.until(lambda: any(running.server.mailbox.depths().values()))
    engine.free()
    results = await stream.results(2)
    assert {(one.camera_id, one.status) for one in results} == {("rear", STATUS_OK), ("front", STATUS_LATE)}
    misses = samples(await running.metrics(), "monocoque_deadline_misses_total")
    assert misses == {("front",): 1, ("rear",): 0}
