"""What a request's head asks for, checked. A client sends the same head again and again, so it is checked once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from protos.inference import wire
from server.engines.lane import EngineState, Lane
from server.open_inference.datatypes import DATATYPES
from server.open_inference.inputs import InputPlan
from server.open_inference.models import Model
from server.open_inference.options import Options
from server.open_inference.outputs import Wanted, answer_head, output_shapes, raw_bytes, write_answer
from server.open_inference.regions import Region

KEPT = 64
"""Requests that are remembered."""
LONGEST_HEAD_BYTES = 4096
"""Of those."""

Lanes = tuple[tuple[Lane, str, EngineState], ...]
"""Every engine, its version and its state. While this stays the same, a name and a version mean the same engine."""


@dataclass(frozen=True)
class Prepared:
    """A request but for its raw contents.

    Attributes:
        lanes: The engines when it was checked.
        lane: The one that it asks.
        model: What that served.
        request_id: Its id.
        options: How it is served.
        wanted: What it asks for.
        inputs: Where its inputs are.
        cost_bytes: What writing its answer takes, see `outputs.cost_bytes`.
        regions: Shared memory that it uses; whoever sends it again must have it still.
    """

    lanes: Lanes
    lane: Lane
    model: Model
    request_id: str
    options: Options
    wanted: Sequence[Wanted]
    inputs: InputPlan
    cost_bytes: int
    regions: tuple[Region, ...]
    _heads: dict[bool, bytes] = field(default_factory=dict)

    def write(self, outputs: Mapping[str, npt.NDArray[Any]], *, in_stream: bool) -> bytes:
        """The answer on the wire, see `write_answer`."""
        if any(one.classes or one.placement for one in self.wanted) or self.model.told_by_run:
            return write_answer(self.model, self.request_id, self.wanted, outputs, in_stream=in_stream)
        if in_stream not in self._heads:
            shapes = output_shapes(self.model, self.inputs.extent)
            specs = [self.model.outputs[one.name] for one in self.wanted]
            tensors = [(spec.name, DATATYPES[spec.dtype], shapes[spec.name]) for spec in specs]
            self._heads[in_stream] = answer_head(self.model, self.request_id, tensors, in_stream=in_stream)
        raw = (raw_bytes(outputs[one.name]) for one in self.wanted)
        return wire.join(self._heads[in_stream], raw, in_stream=in_stream)


class PreparedRequests:
    """The requests that were seen last, by their heads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[bytes, bool], Prepared] = OrderedDict()
        self._beginnings: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        """By a message's length: the bytes before its one raw content, and its head."""

    def split(self, message: bytes) -> tuple[bytes, Sequence[memoryview]]:
        """As `wire.split`, which need not look at a message again that differs from an earlier one by its tensor only.

        Raises:
            DecodeError: See `wire.split`.
        """
        begins = self._beginnings.get(len(message))
        if begins is not None and message.startswith(begins[0]):
            return begins[1], (memoryview(message)[len(begins[0]) :],)
        head, raw = wire.split(message)
        if len(raw) == 1 and len(head) <= LONGEST_HEAD_BYTES:
            beginning = wire.before_raw_input(head, len(raw[0]))
            if len(beginning) + len(raw[0]) == len(message) and message.startswith(beginning):
                self._beginnings[len(message)] = beginning, head
                if len(self._beginnings) > KEPT:
                    self._beginnings.popitem(last=False)
        return head, raw

    def find(self, head: bytes, has_raw: bool, lanes: Lanes) -> Prepared | None:
        """A request with this head, if it still means the same.

        Args:
            head: The head.
            has_raw: Whether raw contents came with it.
            lanes: The engines now.
        """
        found = self._kept.get((head, has_raw))
        if found is None or found.lanes != lanes or found.model.digest != found.lane.served.bundle.digest:
            return None
        self._kept.move_to_end((head, has_raw))
        return found

    def keep(self, head: bytes, has_raw: bool, prepared: Prepared) -> None:
        """Remember a request, if its head is short."""
        if len(head) <= LONGEST_HEAD_BYTES:
            self._kept[head, has_raw] = prepared
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def forget_regions(self) -> None:
        """Forget the requests that use shared memory: remembering one would keep it."""
        self._kept = OrderedDict((key, kept) for key, kept in self._kept.items() if not kept.regions)
