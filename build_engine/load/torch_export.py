"""A PyTorch model becomes ONNX, once, at the door."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir.passes.common as common_passes
import torch
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from torch import nn

from build_engine.errors import BuildError
from build_engine.graph import BATCH, opset_of
from build_engine.load.batch import fill_outputs, name_batch
from build_engine.load.free import name_outputs
from build_engine.load.shapes import InputShape

DEFAULT_OPSET = 18
"""PyTorch's own: nothing has to be converted. TensorRT 10.3 (JetPack 6) reads opsets 9 to 20, and opset 18 needs only
IR version 8."""
_USER_LINE = re.compile(r'raised this error:\s+File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n(?P<code>.*)')
EXAMPLE_BATCH = 2
"""Batch of the example input; with 1 the exporter would take the batch for a constant."""

_CLEANUPS = [
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.materialize_reshape_shape_rule,
    rules.reshape_reshape_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.unsqueeze_unsqueeze_rule,
]
"""What tidies an export. Nothing that merges a batch norm: that is the fuser's, in float64 and in its report."""


def export(model: nn.Module, shapes: Sequence[InputShape], opset: int | None) -> onnx.ModelProto:
    """Export a module, its batch free.

    Args:
        model: Its forward takes tensors and returns a tensor, a tuple of tensors or a dict of them, whose keys become
            the outputs' names.
        shapes: One per input.
        opset: Operator set; None is `DEFAULT_OPSET`.

    Raises:
        BuildError: The shapes do not fit forward, it returns something else, or the exporter refuses; then the
            operator and where it stands are in the message.
    """
    model = model.eval()
    inputs = _named_inputs(model, shapes)
    examples = _zeros(inputs)
    with _quiet(), torch.no_grad():
        try:
            outputs = _output_names(model(**examples))
        except BuildError:
            raise
        except Exception as error:  # whatever the user's forward raises
            given = ", ".join(f"{name}={list(example.shape)}" for name, example in examples.items())
            raise BuildError(
                f"the model fails on zeros of {given}: {type(error).__name__}: {str(error)[:300]}",
                remedy="check --input-shape against what the model was trained with",
            ) from None
        dynamic = {name: {0: torch.export.Dim(BATCH)} for name in examples}
        program = _export(model, examples, dynamic, opset)
        return _checked(_tidy(program, outputs), opset)


def export_program(program: torch.export.ExportedProgram, opset: int | None) -> onnx.ModelProto:
    """Export a `torch.export` program with the shapes it was traced with.

    Raises:
        BuildError: As for `export`.
    """
    with _quiet():
        return _checked(_tidy(_export(program, {}, None, opset), None), opset)


def _export(
    model: nn.Module | torch.export.ExportedProgram,
    examples: dict[str, torch.Tensor],
    dynamic: dict[str, dict[int, Any]] | None,
    opset: int | None,
) -> torch.onnx.ONNXProgram:
    try:
        program = torch.onnx.export(
            model,
            (),
            kwargs=examples,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=opset or DEFAULT_OPSET,
            dynamic_shapes=dynamic,
        )
    except Exception as error:  # the exporter's kinds are private
        if "data-dependent" in (text := str(error)):
            found = _USER_LINE.search(text)
            where = f" ({found['code'].strip()}, {found['file']} line {found['line']})" if found else ""
            raise BuildError(
                f"the model cannot be exported to ONNX: forward decides by what a tensor holds{where}",
                remedy="compute both ways and take one with torch.where, or decide on the host",
            ) from None
        raise BuildError(f"the model cannot be exported to ONNX: {_cause(error)}", remedy=_remedy(error)) from None
    assert program is not None  # noqa: S101 - it is None without dynamo only
    return program


def _tidy(program: torch.onnx.ONNXProgram, outputs: Sequence[str] | None) -> onnx.ModelProto:
    """Fold the exporter's shape arithmetic; give the outputs their names."""
    ir_model = program.model
    common_passes.InlinePass()(ir_model)
    for _ in range(2):
        optimizer.fold_constants(ir_model, input_size_limit=1 << 20, output_size_limit=1 << 22)
        rewriter.rewrite(ir_model, pattern_rewrite_rules=_CLEANUPS)
    for tidy in (
        common_passes.RemoveUnusedNodesPass(),
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.RemoveUnusedNodesPass(),
    ):
        tidy(ir_model)
    for value, name in zip(ir_model.graph.outputs, outputs or (), strict=bool(outputs)):
        value.name = name
    model: onnx.ModelProto = program.model_proto
    name_batch(model)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    fill_outputs(model)
    name_outputs(model)
    return model


def _checked(model: onnx.ModelProto, opset: int | None) -> onnx.ModelProto:
    """The model, if it has the operator set that was asked for: the exporter keeps its own where it cannot convert."""
    if opset not in (None, opset_of(model)):
        raise BuildError(
            f"the exporter made opset {opset_of(model)}, asked for was {opset}: it cannot convert this model",
            remedy=f"leave --opset out, or give --opset {opset_of(model)}",
        )
    return model


def _named_inputs(model: nn.Module, shapes: Sequence[InputShape]) -> dict[str, InputShape]:
    parameters = inspect.signature(model.forward).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if not shapes:
        raise BuildError(
            f"{type(model).__name__} needs the shape of its input ({', '.join(names)})",
            remedy="add --input-shape 1,3,384,640 (batch, channels, height, width)",
        )
    if len(shapes) > 1 and any(shape.name is None for shape in shapes):
        raise BuildError(
            f"{len(shapes)} input shapes, not all of them named",
            remedy=f"name each as forward does: {', '.join(f'--input-shape {name}=...' for name in names)}",
        )
    inputs = {shape.name or names[0]: shape for shape in shapes}
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    if unknown := [name for name in inputs if name not in names]:
        raise BuildError(f"forward has no input {', '.join(unknown)}", remedy=f"it has: {', '.join(names)}")
    if missing := sorted(required & set(names) - set(inputs)):
        raise BuildError(
            f"forward needs {', '.join(missing)} too", remedy=f"add --input-shape {missing[0]}=... for each"
        )
    return inputs


def _zeros(inputs: Mapping[str, InputShape]) -> dict[str, torch.Tensor]:
    try:
        return {
            name: torch.zeros((EXAMPLE_BATCH, *shape.sizes[1:]), dtype=getattr(torch, shape.dtype))
            for name, shape in inputs.items()
        }
    except RuntimeError:  # what torch raises when memory is short
        given = ", ".join(f"{name}={'x'.join(map(str, shape.sizes))}" for name, shape in inputs.items())
        raise BuildError(f"inputs {given} do not fit into memory", remedy="check --input-shape") from None


def _output_names(result: object) -> tuple[str, ...]:
    if isinstance(result, torch.Tensor):
        return ("output",)
    if isinstance(result, dict) and all(isinstance(value, torch.Tensor) for value in result.values()):
        return tuple(str(key) for key in result)
    if isinstance(result, (tuple, list)) and all(isinstance(value, torch.Tensor) for value in result):
        fields = getattr(type(result), "_fields", None)
        return tuple(fields) if fields else tuple(f"output_{index}" for index in range(len(result)))
    raise BuildError(
        f"forward returns {type(result).__name__}, possibly nested",
        remedy="wrap the model so that forward returns a tensor, a tuple of tensors or a dict of tensors",
    )


def _cause(error: BaseException) -> str:
    """The innermost reason, with the operator and the source line where the exporter knows them."""
    causes = []
    current: BaseException | None = error
    while current is not None:
        causes.append(str(current))
        current = current.__cause__ or current.__context__
    text = next((cause for cause in reversed(causes) if "aten" in cause or "No ONNX function" in cause), causes[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip() and "github.com" not in line]
    return " ".join(lines)[:600]


def _remedy(error: BaseException) -> str:
    return (
        "rewrite that part of forward with operators ONNX has (https://onnx.ai/onnx/operators/), or leave it out of "
        "the model and do it on the host"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about itself on every channel there is; what matters is in its exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
