"""Work that waits for the frames: on a thread that the kernel serves last."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

NICER_BY = 10
"""A tenth of the share of the thread that asks where cores are short, a whole core where they are not (sched(7)). The
class SCHED_IDLE would let it starve."""
NICEST = 19

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_background(
    work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Future[Result]:
    """Begin work on a thread of its own, which ends with it.

    Threads that the work starts are served last as well, for as long as they live: an engine's pool must not be made
    here.

    Args:
        work: What to call.
        arguments: Its arguments.
        named: Its arguments by name.

    Returns:
        Its result, or what it raised. To be waited for on any thread; `asyncio.wrap_future` does on the event loop.
    """
    done: Future[Result] = Future()
    done.set_running_or_notify_cancel()  # whoever waits may leave, the result is not in doubt

    def run() -> None:
        with contextlib.suppress(OSError):  # a sandbox may forbid it: the work is done all the same
            _be_served_last()
        try:
            done.set_result(work(*arguments, **named))
        except BaseException as error:  # whoever waits raises it
            done.set_exception(error)

    threading.Thread(target=run, name="background").start()
    return done


def _be_served_last() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # of a real-time thread it would be one itself
    thread = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICER_BY
    os.setpriority(os.PRIO_PROCESS, thread, min(NICEST, niceness))
