from __future__ import annotations

import asyncio
import threading

from server.host.wakeup import Wakeup


async def test_every_ask_of_any_thread_is_followed_by_a_run() -> None:
    asked: list[int] = []
    seen: list[int] = []
    everything = asyncio.Event()

    def run() -> None:
        seen.extend(asked[len(seen) :])
        if len(seen) == 4000:
            everything.set()

    wakeup = Wakeup(run)

    def ask() -> None:
        for number in range(1000):
            asked.append(number)
            wakeup.ask()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.wait_for(everything.wait(), 30)
    for thread in threads:
        thread.join()
    wakeup.close()


async def test_several_asks_before_the_loop_comes_to_it_are_one_run() -> None:
    runs: list[None] = []
    wakeup = Wakeup(lambda: runs.append(None))
    for _ in range(3):
        wakeup.ask()
    await asyncio.sleep(0.01)
    assert len(runs) == 1
    wakeup.close()


async def test_after_the_end_nothing_happens() -> None:
    runs: list[None] = []
    wakeup = Wakeup(lambda: runs.append(None))
    wakeup.ask()
    wakeup.close()
    wakeup.ask()
    wakeup.close()
    await asyncio.sleep(0.01)
    assert not runs
