"""`python -m build_engine fuse`: a model in, the fused model and an account of it out, nothing else."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from build_engine.errors import BuildError
from build_engine.fuse import FuseOptions, FuseReport, FusionMismatch, Verifier, fuse, fuse_verified
from build_engine.fuse.verify import Verification
from build_engine.graph import Tensors, dimensions, feeds, random_inputs, tensor_specs
from build_engine.load import load_model, parse_source
from build_engine.load.mapped import map_onnx
from build_engine.options import FuseRequest
from build_engine.progress import Progress, counter
from build_engine.report.blocks import Structure, structure
from build_engine.report.fusion import fuse_page, fusion_facts
from build_engine.saving import in_memory, save, weights_bytes
from build_engine.session import Session
from build_engine.shortcuts import Shortcuts, without_shortcuts
from build_engine.verify import verifier

SCHEMA_VERSION = 1
LARGEST_RUN_BYTES = (1 << 31) - (1 << 24)
"""Weights above this do not fit the message that ONNX Runtime is handed, so such models are not run here."""
OPEN_SIZES = (37, 64, 224)
"""Tried for sizes that a model leaves open; a network that wants multiples of 32 takes the second."""
MOST_INPUTS = 4


@dataclass(frozen=True)
class FusedFile:
    """What came of it.

    Attributes:
        source: What was fused.
        files: What was written, the model first.
        report: What the fuser did.
        verification: How far the outputs are from the unfused model's; None where that was not measured.
        shortcuts: What became of shortcuts; None where they were to be left.
        notes: What a person should know.
        structures: The graphs before and after, for a drawing.
    """

    source: str
    files: tuple[Path, ...]
    report: FuseReport
    verification: Verification | None
    shortcuts: Shortcuts | None
    notes: tuple[str, ...]
    structures: tuple[Structure, Structure]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the schema is in docs/fusion.md."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "files": [str(file) for file in self.files],
            **self._facts(),
            "notes": list(self.notes),
        }

    def page(self) -> str:
        """The same as a page that draws it."""
        facts = json.loads(json.dumps(self._facts()))  # the page sees what a reader of the JSON sees
        return fuse_page(self.source, facts, self.notes)

    def _facts(self) -> dict[str, Any]:
        return fusion_facts(self.report, *self.structures, self.verification, self.shortcuts)


def fuse_file(request: FuseRequest, progress: Progress) -> FusedFile:
    """Fuse a model and write it, complete or not at all.

    Raises:
        BuildError: The model cannot be loaded or fused, or the outcome is not what the model computes.
    """
    if request.output.suffix != ".onnx" or request.output.is_dir():
        raise BuildError(f"{request.output} is no .onnx file", remedy="write -o fused.onnx")
    if not request.output.parent.is_dir():
        raise BuildError(
            f"no folder {request.output.parent}", remedy=f"mkdir -p {shlex.quote(str(request.output.parent))}"
        )
    with progress.step(f"Loading {request.model}"):
        trained = _load(request)
    options, notes = FuseOptions.for_target(request.target), []
    with counter(progress, "Fusing", 2) as tell:
        result = fuse(trained, options, progress=tell)
    model, report = result.model, result.report
    reference, verification, shortcuts = None, None, None
    runs = max(weights_bytes(trained), weights_bytes(model)) <= LARGEST_RUN_BYTES
    if request.verify and not runs:
        notes.append("not verified: ONNX Runtime takes no more than 2 GiB of weights in one piece")
    elif request.verify:
        before = in_memory(trained)
        inputs = list(_inputs(before))
        if not inputs:
            notes.append("not verified: the model runs on no size that was tried; give one with --input-shape")
        else:
            with counter(progress, "Evaluating the unfused graph", len(inputs)) as tell:
                reference = verifier(before, inputs, tell)
            model, report, verification = _verified(before, model, report, reference, options, progress)
    if request.remove_residuals != "off":
        if not runs:
            raise BuildError(
                "shortcuts are removed by measurement, and ONNX Runtime takes at most 2 GiB of weights in one piece",
                remedy="leave --remove-residuals out",
            )
        plain, shortcuts = without_shortcuts(
            in_memory(model),
            request.remove_residuals,
            reference,
            options=options,
            seconds=request.latency_seconds,
            threads=request.threads,
            progress=progress,
        )
        if shortcuts.removed and shortcuts.without_them:
            model = ir.serde.deserialize_model(plain)
            report = replace(report, after=shortcuts.without_them.cost, live_after=shortcuts.live_without)
            verification = reference.check(plain) if reference else None
    with progress.step("Writing"):
        files = save(model, request.output)
    structures = structure(trained), structure(model)
    return FusedFile(request.model, files, report, verification, shortcuts, tuple(notes), structures)


def _load(request: FuseRequest) -> ir.Model:
    source = parse_source(request.model)
    if source.kind != "onnx":
        return ir.serde.deserialize_model(
            load_model(source, request.weights, request.input_shapes, request.opset).model
        )
    if request.weights is not None or request.opset is not None:
        raise BuildError(
            f"{request.model} has its weights and its operator set inside", remedy="leave --weights and --opset out"
        )
    return map_onnx(Path(request.model), request.input_shapes)


def _verified(
    before: onnx.ModelProto,
    fused: ir.Model,
    report: FuseReport,
    reference: Verifier,
    options: FuseOptions,
    progress: Progress,
) -> tuple[ir.Model, FuseReport, Verification]:
    """The fused model, or one without the regions that miss the bound."""
    try:
        with progress.step("Verifying"):
            return fused, report, reference.check(in_memory(fused))
    except FusionMismatch:
        with progress.step("Looking for the regions that miss the bound"):
            again = fuse_verified(before, reference, options)
        return ir.serde.deserialize_model(again.model), again.report, again.verification


def _inputs(model: onnx.ModelProto) -> Iterator[Tensors]:
    """Random inputs that the model runs on: one and two of a batch, odd sizes and even ones where they are open."""
    session = Session(model)
    is_open = [any(isinstance(size, str) for size in dimensions(value)[1:]) for value in feeds(model)]
    batched = any(isinstance(dimensions(value)[:1] and dimensions(value)[0], str) for value in feeds(model))
    found = 0
    for size, batch in itertools.product(OPEN_SIZES if any(is_open) else (0,), (1, 2) if batched else (1,)):
        sized = _sized(feeds(model), size)
        inputs = random_inputs(tensor_specs(sized), batch, seed=size + batch)
        try:
            session.run(inputs)
        except BuildError:
            continue
        yield inputs
        found += 1
        if found == MOST_INPUTS:
            return


def _sized(values: Sequence[onnx.ValueInfoProto], size: int) -> list[onnx.ValueInfoProto]:
    """Inputs whose open sizes, the batch apart, are `size`; square, so that attention maps fit."""
    sized = []
    for value in values:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        for axis, dim in enumerate(copy.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                if axis:
                    dim.dim_value = size
                else:
                    dim.dim_param = "batch"
        sized.append(copy)
    return sized
