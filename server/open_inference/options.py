"""The parameters of a request that change how it is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protos.inference.service_pb2 import InferParameter
from server.engines.mailbox import HIGHEST_PRIORITY
from server.errors import RequestInvalid

RESERVED_PREFIX = "triton_"
FINAL_RESPONSE = "triton_enable_empty_final_response"
"""Every request has exactly one answer here, which is the final one, so there is never an empty one after it."""

_TYPES = {
    "priority": ("uint64_param", "int64_param"),
    "timeout": ("int64_param", "uint64_param"),
    "sequence_id": ("int64_param", "uint64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    FINAL_RESPONSE: ("bool_param",),
}
"""Kinds of value that each parameter with a meaning may have. A sequence's changes nothing: engines keep no state."""


@dataclass(frozen=True)
class Options:
    """How a request is served.

    Attributes:
        priority: On the scale of the streams: higher is served first, 0 is usual.
        timeout_ns: How long it may wait for its turn; None means for ever.
    """

    priority: int
    timeout_ns: int | None


def read_options(parameters: Mapping[str, InferParameter]) -> Options:
    """Read a request's parameters. Those that mean nothing to us are passed over, as the protocol wants.

    Raises:
        RequestInvalid: One has a value of another kind, or its name is reserved.
    """
    for name in parameters:
        kinds = _TYPES.get(name)
        if kinds is not None:
            given = parameters[name].WhichOneof("parameter_choice")
            if given not in kinds:
                raise RequestInvalid(
                    f"parameter '{name}' has a {given or 'value of no kind'}", remedy=f"send {' or '.join(kinds)}"
                )
        elif name.startswith(RESERVED_PREFIX):
            raise RequestInvalid(
                f"parameter '{name[:80]}' begins with '{RESERVED_PREFIX}', which is reserved",
                remedy=f"only '{FINAL_RESPONSE}' has that prefix",
            )
    timeout_us = _number(parameters, "timeout")
    return Options(
        priority=priority_of(_number(parameters, "priority")), timeout_ns=timeout_us * 1000 if timeout_us > 0 else None
    )


def priority_of(given: int) -> int:
    """From the protocol's scale, where 1 goes first and 0 means the default, to ours."""
    return 0 if given <= 0 else max(-HIGHEST_PRIORITY, HIGHEST_PRIORITY + 1 - given)


def _number(parameters: Mapping[str, InferParameter], name: str) -> int:
    if name not in parameters:  # reading an absent key of a protobuf map would add it
        return 0
    parameter = parameters[name]
    return parameter.uint64_param or parameter.int64_param
