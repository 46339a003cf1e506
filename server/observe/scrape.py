"""The page that Prometheus reads, over HTTP, in slices short enough that no frame waits for them.

prometheus-client renders everything at once, in tens of milliseconds, and the interpreter's lock is then handed to
another thread only every 5 ms. Here one series is rendered at a time, and the loop sleeps in between. With six cameras
and two scrapes a second, the server's part of a frame is as long as without (p99.9 6 ms on two busy cores, 11 to 15 ms
when a thread renders the page).

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from server.observe.metrics import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAUSE_SECONDS = 0.0005
"""Between slices: longer than a slice takes, so that the engine's thread gets the interpreter in time."""
REQUEST_SECONDS = 5.0
"""For a client to send its request."""
MAX_CONNECTIONS = 8
MAX_HEADER_LINES = 100


def slices(metrics: Metrics) -> Iterator[str]:
    """The page, one series at a time."""
    for family in metrics.families:
        described = False
        for values, series in list(family.series.items()):
            labels = dict(zip(family.label_names, values, strict=True))
            for metric in series.collect():
                head = "" if described else _head(metric, family.only_grows)
                described = True
                yield head + _lines(metric, labels)
    for metric in metrics.collect_process():
        yield _head(metric) + _lines(metric, {})


def _head(metric: Metric, only_grows: bool = False) -> str:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    kind = "counter" if only_grows else metric.type
    return f"# HELP {name} {_escape(metric.documentation)}\n# TYPE {name} {kind}\n"


def _lines(metric: Metric, labels: Mapping[str, str]) -> str:
    common = [f'{name}="{_escape(value)}"' for name, value in labels.items()]
    lines = []
    for sample in metric.samples:
        if sample.name.endswith("_created"):
            continue
        pairs = common + [f'{name}="{value}"' for name, value in sample.labels.items()]
        braces = f"{{{','.join(pairs)}}}" if pairs else ""
        lines.append(f"{sample.name}{braces} {_number(sample.value)}\n")
    return "".join(lines)


def _number(value: float) -> str:
    if float(value).is_integer():
        return str(int(value))
    return str(floatToGoString(value))  # type: ignore[no-untyped-call] # prometheus-client has few types


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class ScrapeServer:
    """Answers `GET /metrics`.

    Args:
        metrics: What is shown.
        refresh: Brings gauges up to date before they are.
    """

    def __init__(self, metrics: Metrics, refresh: Callable[[], None]) -> None:
        self._metrics = metrics
        self._refresh = refresh
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            OSError: The port is taken or not allowed.
        """
        self._server = await asyncio.start_server(self._accept, host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening, and cut off whoever is still reading."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we run in one
        self._connections.add(task)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                await _respond(writer, "503 Service Unavailable", ["too many connections\n"])
                return
            request = await asyncio.wait_for(_request_line(reader), REQUEST_SECONDS)
            await self._answer(request, writer)
        except (asyncio.TimeoutError, ConnectionError, ValueError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone, or speaks no HTTP
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: str, writer: asyncio.StreamWriter) -> None:
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != "/metrics":
            await _respond(writer, "404 Not Found", ["metrics are at /metrics\n"])
        elif method not in ("GET", "HEAD"):
            await _respond(writer, "405 Method Not Allowed", ["use GET\n"])
        else:
            self._refresh()
            await _respond(writer, "200 OK", slices(self._metrics) if method == "GET" else ())


async def _request_line(reader: asyncio.StreamReader) -> str:
    """The first line of a request; its headers are read and ignored."""
    request = (await reader.readline()).decode("latin-1").strip()
    for _ in range(MAX_HEADER_LINES):
        if not (await reader.readline()).strip():
            return request
    raise ValueError("too many header lines")


async def _respond(writer: asyncio.StreamWriter, status: str, body: Iterable[str]) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    for part in body:
        writer.write(part.encode())
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)
