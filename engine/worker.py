"""The engine in a process of its own: `python -m engine.worker`, started by `engine.process` and by nobody else.

It owns the only CUDA context, maps the regions whose descriptors it is given, and dies with the process that started
it: the kernel kills it (PR_SET_PDEATHSIG), and it ends by itself where the channel closes.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path

from engine.bundle import Bundle
from engine.channel import Channel, Message, pack_description, unpack_batch
from engine.errors import EngineError, RunFailed, pack_error
from engine.lifetime import die_with
from engine.opening import open_runtime
from engine.runtime import Runtime
from engine.slots import Region, RegionTable


def main(arguments: list[str]) -> int:
    """Serve one channel until it closes.

    Args:
        arguments: Descriptor of the channel, and the process id of the parent.
    """
    try:
        descriptor, parent = (int(argument) for argument in arguments)
    except ValueError:
        sys.stderr.write("the engine's process is started by the server: python -m server BUNDLE\n")
        return 2
    for kind in (signal.SIGINT, signal.SIGTERM):  # these reach the whole group; the parent drains, then closes
        signal.signal(kind, signal.SIG_IGN)
    die_with(parent)
    serve(Channel.adopt(descriptor))
    return 0


def serve(channel: Channel) -> None:
    """Answer messages until the other end closes or asks to close.

    Each request has one answer: what was asked for, or `error` with an exception's type, message and remedy.
    """
    session = _Session()
    try:
        while (received := channel.receive()) is not None:
            message, descriptors = received
            try:
                answer = session.answer(message, descriptors)
            except EngineError as error:
                answer = {"error": pack_error(error)}
            except Exception as error:  # one answer per request, whatever happens
                failed = RunFailed(f"the engine's process failed: {error!r}", remedy="report this as a bug")
                answer = {"error": pack_error(failed)}
            channel.send(answer)
            if message.get("op") == "close":
                return
    except ConnectionError:
        return  # the parent is gone
    finally:
        session.close()
        channel.close()


class _Session:
    """The one runtime of a process, and the regions it was given."""

    def __init__(self) -> None:
        self._regions = RegionTable()
        self._runtime: Runtime | None = None

    def answer(self, message: Message, descriptors: list[int]) -> Message:
        match message.get("op"):
            case "open":
                return self._open(message)
            case "regions":
                for number, descriptor in zip(message["numbers"], descriptors, strict=True):
                    self._regions.add(Region(int(number), descriptor))
                return {}
            case "forget":
                for number in message["numbers"]:
                    self._regions.remove(int(number))
                return {}
            case "run":
                return dataclasses.asdict(self._opened().run(unpack_batch(message)))
            case "memory":
                return {"bytes_by_kind": dict(self._opened().memory().bytes_by_kind)}
            case "close":
                self.close()
                return {}
            case other:
                raise RunFailed(f"the engine's process knows no {other!r}", remedy="report this as a bug")

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None
        self._regions.close()

    def _open(self, message: Message) -> Message:
        bundle = Bundle.open(message["bundle"])
        cache = message["plan_cache"]
        self._runtime = open_runtime(
            bundle,
            message["target"],
            self._regions,
            threads=message["threads"],
            spin=message["spin"],
            fallback=message["fallback"],
            plan_cache=None if cache is None else Path(cache),
        )
        return {"digest": bundle.digest, "description": pack_description(self._runtime.describe())}

    def _opened(self) -> Runtime:
        if self._runtime is None:
            raise RunFailed("no engine is open in the engine's process", remedy="report this as a bug")
        return self._runtime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
