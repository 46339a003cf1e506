"""`python -m server BUNDLE`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from engine.errors import EngineError
from server.app import Server
from server.errors import StartFailed
from server.settings import Settings, load_settings

EXIT_START_FAILED = 2
EXIT_CUT_SHORT = 1
SWITCH_INTERVAL_SECONDS = 0.0005
"""After which a thread that computes in Python lets another one have the interpreter. At Python's 5 ms, a frame that
comes while an engine is opened may wait longer than the engine takes for it."""


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once. SIGHUP swaps engines."""
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            logging.getLogger("monocoque.server").warning("second %s: not waiting for answers", number.name)
            os._exit(EXIT_CUT_SHORT)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    server = Server(settings)
    await server.start()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(server.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    await stop.wait()
    logging.getLogger("monocoque.server").info("draining, for at most %g s", settings.drain_seconds)
    await server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command-line arguments; None takes the process's.

    Returns:
        The exit code: 0 after a drain, 2 where the server cannot start.
    """
    try:
        settings = load_settings(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
        )
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        asyncio.run(run(settings))
    except (EngineError, StartFailed) as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return EXIT_START_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
