"""Dimensions other than the batch that are free at run time: their names, and how large they get."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from build_engine.errors import BuildError
from build_engine.graph import BATCH, dimensions, feeds, random_inputs, tensor_specs
from build_engine.session import Session
from engine.manifest import FreeDimension, Target
from engine.tensors import TensorSpec

SEEDS = range(4)
"""Of inputs as large as they get: an output whose size differs among them depends on more than sizes."""
_SIZES = re.compile(r"\d+(?::\d+){0,2}", re.ASCII)


def parse_dimension(text: str) -> tuple[str, FreeDimension]:
    """Read one `--dimension`: `length=512`, `length=128:512` with the usual size first, or `length=1:128:512`.

    The smallest size is 1 and the usual one the largest where they are not given.

    Raises:
        BuildError: It is none; the message says what to write.
    """
    name, _, sizes = text.rpartition("=")
    if name == BATCH:
        raise BuildError(f"--dimension {text}: the batch has a flag of its own", remedy="write --max-batch 8")
    if not name or not _SIZES.fullmatch(sizes):
        raise BuildError(
            f"--dimension {text!r} says no size",
            remedy=f"write {_flag(name or 'length')} (smallest, usual and largest size), "
            f"or --dimension {name or 'length'}=512",
        )
    given = [int(size) for size in sizes.split(":")]
    largest = given[-1]
    usual = given[-2] if len(given) > 1 else largest
    smallest = given[0] if len(given) == 3 else 1
    if largest < 1 or usual < 1:
        raise BuildError(
            f"--dimension {text}: a usual or largest size of 0 is no size",
            remedy=f"write --dimension {name}={smallest}:{max(usual, 1)}:{max(largest, usual, 1)}; only the smallest "
            "may be 0, which serves requests that have none of it",
        )
    if not smallest <= usual <= largest:
        rising = ":".join(map(str, sorted((smallest, usual, largest))))
        raise BuildError(
            f"--dimension {text}: the smallest size is {smallest}, the usual one {usual}, the largest {largest}",
            remedy=f"give them in this order, none below the one before: --dimension {name}={rising}",
        )
    return name, FreeDimension(smallest=smallest, usual=usual, largest=largest)


def _flag(name: str) -> str:
    """An example of what to type."""
    return f"--dimension {name}=1:128:512"


def name_inputs(model: onnx.ModelProto) -> None:
    """Give the dimensions of inputs that an exporter left without a name one, in place: `ids_1`."""
    for value in feeds(model):
        for axis, (dim, size) in enumerate(zip(value.type.tensor_type.shape.dim, dimensions(value), strict=True)):
            if size == "":
                dim.dim_param = f"{value.name}_{axis}"


def name_outputs(model: onnx.ModelProto) -> None:
    """Give the dimensions of outputs that neither file nor inference knows a name, in place: only runs tell them."""
    for value in model.graph.output:
        for axis, (dim, size) in enumerate(zip(value.type.tensor_type.shape.dim, dimensions(value), strict=True)):
            if size == "":
                dim.dim_param = f"{value.name}_{axis}"


@dataclass(frozen=True)
class FreeDimensions:
    """Which dimensions besides the batch are free, and how large they get.

    Attributes:
        by_name: Size of each.
    """

    by_name: Mapping[str, FreeDimension]

    @property
    def usual(self) -> dict[str, int]:
        """The size of each that is measured with."""
        return {name: dimension.usual for name, dimension in self.by_name.items()}


def check_fixed(model: onnx.ModelProto, why: str) -> None:
    """Refuse a model with free dimensions besides the batch.

    Args:
        model: With a name for every dimension that is not known.
        why: What cannot serve them.

    Raises:
        BuildError: It has one; whose it is, and for an output the operator that makes it, are in the message.
    """
    chosen, told = _names(tensor_specs(feeds(model))), _names(tensor_specs(list(model.graph.output)))
    for name, where in chosen.items():
        raise BuildError(
            f"dimension {name!r} of input {where!r} is free, and {why}",
            remedy=f"fix it with --input-shape {where}=..., one bundle per size; or build tensors for --target cpu",
        )
    for name, where in told.items():
        raise _told_by_run(model, name, where, why)


def _told_by_run(model: onnx.ModelProto, name: str, where: str, why: str) -> BuildError:
    """What to say about a dimension of an output that cannot be served."""
    maker = next((node for node in model.graph.node if where in node.output), None)
    made = "" if maker is None else f", which {maker.op_type} {maker.name!r} makes,"
    return BuildError(
        f"only a run tells dimension {name!r} of output {where!r}{made} and {why}",
        remedy="end the model before that and do it on the host, or end it with TopK, which gives as many each "
        "time; or build tensors for --target cpu",
    )


def find_free(
    model: onnx.ModelProto, given: Mapping[str, FreeDimension], max_batch: int, planned: Sequence[Target] = ()
) -> FreeDimensions:
    """Find the free dimensions of a loaded model.

    Those of inputs must be given. Those that only outputs have are measured, with inputs as large as they get, unless
    they are given. Where they depend on what is in the inputs, a measurement is no bound: then they must be.

    Args:
        model: With a name for every dimension that is not known.
        given: Sizes by name.
        max_batch: Largest batch, where the model has one.
        planned: Targets that plans are compiled for: the compiler believes that the model computes the smallest sizes
            too, and a plan's outputs have sizes that follow from those of its inputs.

    Raises:
        BuildError: The size of one is not given, one is given that the model has not, one depends on what is in the
            inputs and plans are wanted, or the model fails at its smallest or largest sizes.
    """
    inputs, outputs = tensor_specs(feeds(model)), tensor_specs(list(model.graph.output))
    chosen = _names(inputs)
    if missing := [name for name in chosen if name not in given]:
        raise BuildError(
            "; ".join(f"dimension {name!r} of input {chosen[name]!r} is free at run time" for name in missing)
            + ": how large it may get is not known",
            remedy=f"say its smallest, usual and largest size, for example {' '.join(map(_flag, missing))}; "
            "or fix it with --input-shape",
        )
    told = {name: where for name, where in _names(outputs).items() if name not in chosen}
    if unknown := sorted(set(given) - set(chosen) - set(told)):
        known = ", ".join([*chosen, *told]) or "none"
        raise BuildError(f"no dimension {', '.join(unknown)} is free in this model", remedy=f"those that are: {known}")
    found = {name: given[name] for name in chosen}
    if chosen:
        _check_computes(model, inputs, found, "largest")
    if chosen and planned:
        _check_computes(model, inputs, found, "smallest")
    if any(planned or name not in given for name in told):
        measured = _measured(model, inputs, outputs, found, max_batch)
        for name, where in told.items():
            if planned and name not in measured:
                why = f"a plan for {', '.join(planned)} knows only sizes that follow from the inputs'"
                raise _told_by_run(model, name, where, why)
            if name not in given and name not in measured:
                raise BuildError(
                    f"dimension {name!r} of output {where!r} depends on what is in the inputs: how large it may get is "
                    "not known",
                    remedy=f"say so: --dimension {name}=100",
                )
        found |= {name: measured[name] for name in told if name not in given}
    return FreeDimensions(found | {name: given[name] for name in told if name in given})


def _names(specs: tuple[TensorSpec, ...]) -> dict[str, str]:
    """Free dimensions by name, with the first tensor that has each."""
    found: dict[str, str] = {}
    for spec in specs:
        for name in spec.free:
            found.setdefault(name, spec.name)
    return found


def _check_computes(
    model: onnx.ModelProto,
    inputs: tuple[TensorSpec, ...],
    chosen: Mapping[str, FreeDimension],
    kind: Literal["smallest", "largest"],
) -> None:
    """Run a model on inputs of its smallest, or of its largest, sizes."""
    sizes = {name: int(getattr(dimension, kind)) for name, dimension in chosen.items()}
    try:
        Session(model).run(random_inputs(inputs, 1, 0, sizes))
    except BuildError as error:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        form = "MIN:{0.usual}:{0.largest}" if kind == "smallest" else "{0.smallest}:USUAL:LARGEST"
        raise BuildError(
            f"the {kind} sizes that are to be served are {told}, and {error.message}",
            remedy="give sizes at which the model computes: "
            + " ".join(f"--dimension {name}={form.format(dimension)}" for name, dimension in chosen.items()),
        ) from None


def _measured(
    model: onnx.ModelProto,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    chosen: Mapping[str, FreeDimension],
    max_batch: int,
) -> dict[str, FreeDimension]:
    """Sizes of the outputs' dimensions that follow from the sizes of the inputs, whatever is in them."""
    session = Session(model)

    def sizes(batch: int, inputs_sizes: Mapping[str, int], seed: int) -> dict[str, int]:
        seen = session.run(random_inputs(inputs, batch, seed, inputs_sizes))
        named = [zip(spec.shape, seen[spec.name].shape, strict=True) for spec in outputs]
        return {name: max(1, size) for pairs in named for name, size in pairs if isinstance(name, str)}

    usual = sizes(1, {name: dimension.usual for name, dimension in chosen.items()}, 0)
    largest = [
        sizes(max_batch, {name: dimension.largest for name, dimension in chosen.items()}, seed) for seed in SEEDS
    ]
    return {
        name: FreeDimension(usual=min(usual[name], size), largest=max(usual[name], size))
        for name, size in largest[0].items()
        if name != BATCH and all(other[name] == size for other in largest)
    }
