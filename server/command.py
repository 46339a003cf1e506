"""The command: settings, signals, exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from engine.errors import EngineError
from server.app import Server
from server.errors import Draining, StartFailed
from server.settings import Settings, load_settings, unknown_variables

log = logging.getLogger("monocoque.server")

EXIT_STOPPED = 0
EXIT_CUT_SHORT = 1
EXIT_START_FAILED = 2
SWITCH_INTERVAL_SECONDS = 0.0005
"""After which a thread that computes in Python lets another one have the interpreter. At Python's 5 ms, a frame that
comes while an engine is opened may wait longer than the engine takes for it."""


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once. SIGHUP swaps engines.

    Raises:
        Draining: A signal came before it served.
        EngineError: See `Server.start`.
        StartFailed: See `Server.start`.
    """
    server = Server(settings)
    stop = asyncio.Event()
    serves = False

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("second %s: not waiting for answers", number.name)
            os._exit(EXIT_CUT_SHORT)
        stop.set()
        if not serves:
            server.catalogue.give_up()

    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        if not serves:
            log.warning("SIGHUP: no engine is served yet, so none is swapped")
            return
        task = asyncio.ensure_future(server.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        await server.start()
        serves = True
        await stop.wait()
        log.info("draining, for at most %g s", settings.drain_seconds)
        await server.stop()
    finally:
        if stop.is_set() and server.catalogue.opening:
            logging.shutdown()
            os._exit(EXIT_STOPPED)  # the threads that open them would be waited for


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command-line arguments; None takes the process's.

    Returns:
        The exit code: 0 after SIGTERM or SIGINT, 1 after a second one, 2 where the server cannot start.
    """
    try:
        settings = load_settings(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
        )
        for complaint in unknown_variables(os.environ):
            log.warning("%s", complaint)
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        asyncio.run(run(settings))
    except Draining:
        log.info("stopped before it served")
    except (EngineError, StartFailed) as error:
        sys.stderr.write(f"python -m server: {error}\n")
        return EXIT_START_FAILED
    return EXIT_STOPPED
