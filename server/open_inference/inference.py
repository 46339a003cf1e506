"""One request, from its message to its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from protos.inference.service_pb2 import ModelInferRequest
from server.core import Core
from server.errors import EngineNotFound, StreamEnded
from server.lane import Lane
from server.open_inference.caller import Caller
from server.open_inference.inputs import read_inputs
from server.open_inference.models import Model
from server.open_inference.options import read_options
from server.open_inference.outputs import Wanted, cost_bytes, read_outputs, write_answer
from server.open_inference.placement import FindRegion
from server.open_inference.regions import Region, Regions
from server.open_inference.statistics import Statistics

LOOP_BYTES = 256 << 10
"""Bytes of an answer that are copied on the event loop, in tens of microseconds; more are copied on another thread."""


class Inference:
    """Computes requests. On the event loop.

    Args:
        core: What is served.
        regions: Shared memory of callers.
    """

    def __init__(self, core: Core, regions: Regions) -> None:
        self._core = core
        self._regions = regions
        self._models: WeakKeyDictionary[Lane, Model] = WeakKeyDictionary()
        self._statistics: WeakKeyDictionary[Lane, Statistics] = WeakKeyDictionary()

    def find(self, name: str, version: str) -> Lane:
        """The engine that a request names.

        Args:
            name: The model.
            version: Its version; empty means the newest.

        Raises:
            EngineNotFound: There is none.
        """
        try:
            if name:
                return self._core.catalogue.find(name, version)
            raise EngineNotFound("'' is not served", remedy="name one of RepositoryIndex")
        except EngineNotFound as error:
            raise EngineNotFound(f"unknown model: {error.message}", remedy=error.remedy) from None

    def statistics(self, lane: Lane) -> Statistics:
        """What an engine has done since it was loaded."""
        return self._statistics.setdefault(lane, Statistics())

    async def infer(
        self, request: ModelInferRequest, raw: Sequence[memoryview], caller: Caller, *, in_stream: bool = False
    ) -> bytes:
        """Compute one request.

        Args:
            request: Without its raw contents.
            raw: Its raw contents.
            caller: Who asks.
            in_stream: Whether the answer is one of a stream's.

        Returns:
            The answer on the wire: a `ModelInferResponse`, or a `ModelStreamInferResponse` in a stream.

        Raises:
            StreamEnded: It cannot be computed; the message begins with the request's id, where it has one.
        """
        try:
            return await self._infer(request, raw, caller, in_stream)
        except StreamEnded as error:
            if not request.id:
                raise
            raise type(error)(f"[request id: {request.id[:80]}] {error.message}", remedy=error.remedy) from None

    async def _infer(
        self, request: ModelInferRequest, raw: Sequence[memoryview], caller: Caller, in_stream: bool
    ) -> bytes:
        received = time.monotonic_ns()
        self._core.check_not_draining()
        lane = self.find(request.model_name, request.model_version)
        model = self._model(lane)
        options = read_options(request.parameters)
        find_region = self._finder(caller)
        wanted = read_outputs(model, request, find_region)
        inputs, batch = read_inputs(model, request, raw, find_region)
        if batch == 0:
            return await _write(model, request, wanted, _nothing(model), in_stream)
        statistics = self.statistics(lane)
        try:
            inferred = await lane.infer(inputs, timeout_ns=options.timeout_ns, priority=options.priority)
            answer = await _write(model, request, wanted, inferred.outputs, in_stream)
        except StreamEnded:
            statistics.fail.add(time.monotonic_ns() - received)
            raise
        statistics.computed(inferred, time.monotonic_ns() - received)
        return answer

    def _model(self, lane: Lane) -> Model:
        """What a lane serves at the moment: a swap changes it."""
        served = lane.served
        model = self._models.get(lane)
        if model is None or model.digest != served.bundle.digest:
            model = self._models[lane] = Model.of(served)
        return model

    def _finder(self, caller: Caller) -> FindRegion:
        """Looks up the regions of a caller, whose user is asked for by the first of them."""
        user: int | None = None

        def find(name: str) -> Region:
            nonlocal user
            user = caller.user() if user is None else user
            return self._regions.find(user, name)

        return find


async def _write(
    model: Model,
    request: ModelInferRequest,
    wanted: Sequence[Wanted],
    outputs: Mapping[str, npt.NDArray[Any]],
    in_stream: bool,
) -> bytes:
    """Write the answer, on another thread where it would hold up everyone else."""
    if cost_bytes(wanted, outputs) <= LOOP_BYTES:
        return write_answer(model, request, wanted, outputs, in_stream=in_stream)
    return await asyncio.to_thread(write_answer, model, request, wanted, outputs, in_stream=in_stream)


def _nothing(model: Model) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a batch without entries, for which no engine is needed."""
    return {name: np.zeros(spec.concrete(0), spec.dtype) for name, spec in model.outputs.items()}
