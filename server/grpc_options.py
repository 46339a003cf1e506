"""What the gRPC server is told: limits that no client gets past, and when a silent peer counts as gone.

gRPC collects a message before any handler sees it. So calls that begin a message and never end it are bounded here:
calls at once, times the largest message, fit the memory budget. Connections are bounded too, since each of them takes
a descriptor, whoever opened it.
"""

from __future__ import annotations

import logging

from server.stream.opening import Limits

log = logging.getLogger("monocoque.server")

OTHER_CALLS = 32
"""Calls besides streams and watchers: inference, health checks, reflection, GetEngine."""
FEWEST_OTHER_CALLS = 4
"""What is left of them where the memory budget takes no more."""
OTHER_CONNECTIONS = 64
"""Connections besides one for each call: clients that are between two calls."""
REFUSED_AT_ONCE = 100
"""Calls beyond the limit on one connection that are told so. HTTP/2 has a limit of its own, beyond which a client lets
its calls wait without a word; it lies higher by this many, so that it is never reached."""
KEEPALIVE_MS = 20_000
"""A peer that vanished without closing is noticed after this and a timeout."""
IDLE_MS = 300_000
"""A connection without calls is closed after this; a client opens it again by itself."""
CLIENT_PING_MS = 5_000
"""How often a client may ask whether we are there; gRPC's default of 5 minutes would cut careful clients off."""


def calls_at_once(limits: Limits, largest_message_bytes: int) -> int:
    """Calls that may be open: all streams and watchers, and as many others as fit the budget.

    Args:
        limits: What is accepted.
        largest_message_bytes: That gRPC takes.
    """
    lasting = limits.max_streams + limits.max_watchers
    affordable = limits.memory_budget_bytes // largest_message_bytes
    calls = max(lasting + FEWEST_OTHER_CALLS, min(lasting + OTHER_CALLS, affordable))
    if calls > affordable:
        log.warning(
            "%d calls may each have sent half a message of %d bytes, which is more than --memory-budget %d; lower "
            "--max-streams, --max-watchers or --max-frame, or raise the budget",
            calls,
            largest_message_bytes,
            limits.memory_budget_bytes,
        )
    return calls


def server_options(calls: int, largest_message_bytes: int) -> list[tuple[str, int]]:
    """Channel arguments.

    Args:
        calls: That may be open.
        largest_message_bytes: Longer ones end their call with gRPC's own words.
    """
    return [
        ("grpc.max_receive_message_length", largest_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not a helper
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS // 2),  # the one that counts, a minute by default
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_MS),
        ("grpc.http2.max_concurrent_streams", calls + REFUSED_AT_ONCE),
        ("grpc.max_allowed_incoming_connections", calls + OTHER_CONNECTIONS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]
