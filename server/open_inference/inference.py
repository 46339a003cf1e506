"""One request, from its message to its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from protos.inference.service_pb2 import ModelInferRequest
from server.core import Core
from server.engines.lane import Lane
from server.errors import EngineNotFound, StreamEnded
from server.open_inference.caller import Caller
from server.open_inference.inputs import plan_inputs
from server.open_inference.models import Model
from server.open_inference.options import read_options
from server.open_inference.outputs import cost_bytes, output_shapes, read_outputs
from server.open_inference.placement import FindRegion
from server.open_inference.prepared import Lanes, Prepared, PreparedRequests
from server.open_inference.regions import Region, Regions

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
        self._prepared = PreparedRequests()
        self._models: WeakKeyDictionary[Lane, Model] = WeakKeyDictionary()

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

    async def infer(self, message: bytes, caller: Caller, *, in_stream: bool = False) -> bytes:
        """Compute one request.

        Args:
            message: A `ModelInferRequest` on the wire.
            caller: Who asks.
            in_stream: Whether the answer is one of a stream's.

        Returns:
            The answer on the wire: a `ModelInferResponse`, or a `ModelStreamInferResponse` in a stream.

        Raises:
            DecodeError: It is no such message.
            StreamEnded: It cannot be computed; the message begins with the request's id, where it has one.
        """
        received = time.monotonic_ns()
        head, raw = self._prepared.split(message)
        lanes = tuple([(lane, lane.version, lane.state) for lane in self._core.catalogue.lanes])
        prepared = self._prepared.find(head, len(raw) > 0, lanes)
        request_id = ""
        try:
            if prepared is None or not self._regions.has(prepared.regions, caller):
                request = ModelInferRequest.FromString(head)
                request_id = request.id
                prepared = self._prepare(lanes, request, len(raw) > 0, caller)
                self._prepared.keep(head, len(raw) > 0, prepared)
            request_id = prepared.request_id
            self._core.check_not_draining()
            return await self._compute(prepared, raw, received, in_stream)
        except StreamEnded as error:
            if not request_id:
                raise
            raise type(error)(f"[request id: {request_id[:80]}] {error.message}", remedy=error.remedy) from None

    def _prepare(self, lanes: Lanes, request: ModelInferRequest, has_raw: bool, caller: Caller) -> Prepared:
        """Check everything but the raw contents."""
        lane = self.find(request.model_name, request.model_version)
        model = self._model(lane)
        used: list[Region] = []
        find_region = self._finder(caller, used)
        wanted = read_outputs(model, request, find_region)
        inputs = plan_inputs(model, request, has_raw, find_region)
        return Prepared(
            lanes=lanes,
            lane=lane,
            model=model,
            request_id=request.id,
            options=read_options(request.parameters),
            wanted=wanted,
            inputs=inputs,
            cost_bytes=cost_bytes(model, wanted, inputs.extent),
            regions=tuple(used),
        )

    async def _compute(self, prepared: Prepared, raw: Sequence[memoryview], received: int, in_stream: bool) -> bytes:
        inputs = prepared.inputs.read(raw)
        if prepared.inputs.extent.batch == 0:
            return prepared.write(_nothing(prepared), in_stream=in_stream)
        lane, options = prepared.lane, prepared.options
        try:
            inferred = await lane.infer(
                inputs,
                timeout_ns=options.timeout_ns,
                priority=options.priority,
                checked=prepared.inputs.extent,
            )
            if prepared.cost_bytes <= LOOP_BYTES:
                answer = prepared.write(inferred.outputs, in_stream=in_stream)
            else:
                answer = await asyncio.to_thread(prepared.write, inferred.outputs, in_stream=in_stream)
        except StreamEnded:
            lane.statistics.fail.add(time.monotonic_ns() - received)
            raise
        lane.statistics.computed(inferred, time.monotonic_ns() - received)
        return answer

    def _model(self, lane: Lane) -> Model:
        """What a lane serves at the moment: a swap changes it."""
        served = lane.served
        model = self._models.get(lane)
        if model is None or model.digest != served.bundle.digest:
            model = self._models[lane] = Model.of(served)
        return model

    def forget_regions(self) -> None:
        """Regions were unregistered: let go of them."""
        self._prepared.forget_regions()

    def _finder(self, caller: Caller, used: list[Region]) -> FindRegion:
        """Looks up regions of a caller, whose user is asked for by the first of them, and notes them in `used`."""
        user: int | None = None

        def find(name: str) -> Region:
            nonlocal user
            user = caller.user() if user is None else user
            used.append(self._regions.find(user, name))
            return used[-1]

        return find


def _nothing(prepared: Prepared) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a batch without entries, for which no engine is needed."""
    shapes = output_shapes(prepared.model, prepared.inputs.extent)
    return {name: np.zeros(shapes[name], spec.dtype) for name, spec in prepared.model.outputs.items()}
