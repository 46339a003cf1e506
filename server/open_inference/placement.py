"""Where a tensor of a request lies, or goes, in shared memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protos.inference.service_pb2 import InferParameter
from server.errors import RequestInvalid
from server.open_inference.regions import Region

REGION, OFFSET, BYTE_SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"
FindRegion = Callable[[str], Region]
"""The caller's region of a name; raises where there is none."""


@dataclass(frozen=True)
class Placement:
    """A stretch of a region, inside of it.

    Attributes:
        region: The region.
        offset: First byte.
        byte_size: Bytes.
    """

    region: Region
    offset: int
    byte_size: int


def read_placement(tensor: str, parameters: Mapping[str, InferParameter], find_region: FindRegion) -> Placement | None:
    """Read a tensor's parameters.

    Args:
        tensor: Its name.
        parameters: Its parameters.
        find_region: Looks a region up.

    Returns:
        None for a tensor that is not in shared memory.

    Raises:
        StreamEnded: The region is not there or too short, or the parameters make no sense.
    """
    if REGION not in parameters:
        return None
    byte_size = _number(tensor, parameters, BYTE_SIZE, None)
    offset = _number(tensor, parameters, OFFSET, 0)
    if parameters[REGION].WhichOneof("parameter_choice") != "string_param":
        raise RequestInvalid(f"'{REGION}' of tensor '{tensor}' is no text", remedy="send a string_param")
    region = find_region(parameters[REGION].string_param)
    region.check(offset, byte_size)
    return Placement(region, offset, byte_size)


def _number(tensor: str, parameters: Mapping[str, InferParameter], name: str, default: int | None) -> int:
    if name not in parameters:
        if default is None:
            raise RequestInvalid(f"tensor '{tensor}' has '{REGION}' but no '{name}'", remedy=f"send '{name}', too")
        return default
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise RequestInvalid(f"'{name}' of tensor '{tensor}' is no number", remedy="send an int64_param")
    number: int = getattr(parameters[name], kind)
    return number
