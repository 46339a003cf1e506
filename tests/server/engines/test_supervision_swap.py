"""An engine's process dies while another bundle takes its place: whichever lives serves, and nobody waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.monocoque.v1.result_pb2 import STATUS_OK
from server.engines import supervision
from tests.server.bundles import write_bundle
from tests.server.conftest import serving
from tests.server.engines.dying import kill, only_worker, restarts, workers
from tests.server.engines.test_swap import refusal, swap
from tests.server.observe.test_metrics import samples
from tests.server.raw_client import frame

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_a_swap_need_not_wait_for_a_process_that_died(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_DELAY_SECONDS", 1000)
    new = write_bundle(tmp_path / "new", version="2.0")
    async with serving(bundle, engine_process=True) as running:
        stream = await running.open_one("front")
        lane = running.server.catalogue.find()
        kill(only_worker())
        await running.until(lambda: lane.instances == (0, 1))
        outcome = await swap(running, bundle=str(new))
        assert lane.instances == (1, 1)
        await stream.send(frame(1))
        (result,) = await stream.results(1)
        assert (result.status, result.engine_digest) == (STATUS_OK, outcome.digest)
        await running.until(lambda: len(workers()) == 1)
        assert await restarts(running) == 0


async def test_the_old_engine_may_die_while_the_new_one_proves_itself(bundle: Path, tmp_path: Path) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    async with serving(bundle, engine_process=True) as running:
        old = only_worker()
        await swap(running, bundle=str(new))  # nobody sends: it does not wait
        assert len(workers()) == 2
        kill(old)
        lane = running.server.catalogue.find()
        await running.until(lambda: lane._probation is None)
        assert (lane.version, lane.instances) == ("2.0", (1, 1))
        await running.still_serves()
        assert await restarts(running) == 0


async def test_the_new_engine_may_die_before_its_first_frame(bundle: Path, tmp_path: Path) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    async with serving(bundle, engine_process=True) as running:
        old = only_worker()
        await swap(running, bundle=str(new))
        (fresh,) = set(workers()) - {old}
        kill(fresh)
        lane = running.server.catalogue.find()
        await running.until(lambda: lane.version == "1.0")
        assert lane.instances == (1, 1)
        await running.still_serves()
        await running.until(lambda: workers() == [old])
        page = await running.metrics()
        assert samples(page, "monocoque_engine_rollbacks_total") == {("quarters",): 1}
        assert samples(page, "monocoque_engine_restarts_total") == {("quarters",): 0}


async def test_the_new_engine_may_die_amid_its_first_frames(bundle: Path, tmp_path: Path) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    async with serving(bundle, engine_process=True) as running:
        stream = await running.open_one("front")
        old = only_worker()
        swapping = asyncio.ensure_future(refusal(running, bundle=str(new)))
        lane = running.server.catalogue.find()
        await running.until(lambda: lane.version == "2.0")
        (fresh,) = set(workers()) - {old}
        kill(fresh)
        code, details = await swapping
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"the engine's process {fresh} ended (signal SIGKILL)" in details
        await stream.send(frame(1))
        assert (await stream.results(1))[0].status == STATUS_OK
        assert lane.version == "1.0"
