"""The network takes a camera's own bytes: `uint8`, height x width x channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engine.errors import BuildError
from build_engine.graph import BATCH, constants, consumers, dimensions, element_type, feeds

Color = Literal["rgb", "bgr", "gray"]


@dataclass(frozen=True)
class CameraInput:
    """What the network was trained on.

    Attributes:
        color: Channel order of the frames; the server delivers them so, and nothing is swapped in the graph.
        mean: Per channel, on the scale 0 to 255.
        std: Per channel, on the scale 0 to 255.
    """

    color: Color
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        channels = 1 if self.color == "gray" else 3
        if len(self.mean) != channels or len(self.std) != channels:
            raise BuildError(
                f"{self.color} frames have {channels} channels; mean has {len(self.mean)} values, std {len(self.std)}",
                remedy=f"give {channels} values each: --mean {','.join(['123.7'] * channels)}",
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise BuildError(
                f"mean {self.mean} and std {self.std} are not all numbers",
                remedy="give what the network was trained with: --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4",
            )
        if min(self.std) <= 0:
            raise BuildError(
                f"a standard deviation of {min(self.std)}", remedy="--std has positive values, 0..255 scale"
            )


def takes_frames(model: onnx.ModelProto, camera: CameraInput) -> onnx.ModelProto:
    """Put Cast, Transpose, Sub and Mul before the network; its input keeps its name.

    The order suits TensorRT: a `uint8` tensor must pass a Cast before anything else, and it merges all four into
    the first kernels. The scale is a multiplication so that the fuser can fold it into the first convolution, which
    is exact; the mean is subtracted before that, so that the convolution still pads with the mean and not with
    black.

    Raises:
        BuildError: The network does not take one NCHW image of known size and as many channels.
    """
    inputs = feeds(model)
    value = inputs[0]
    sizes = dimensions(value)
    channels = len(camera.mean)
    if len(inputs) != 1 or len(sizes) != 4 or sizes[1] != channels or not all(isinstance(s, int) for s in sizes[2:]):
        seen = ", ".join(f"{each.name}{list(dimensions(each))}" for each in inputs)
        raise BuildError(
            f"{camera.color} frames need one input of shape [batch, {channels}, height, width]; the model takes {seen}",
            remedy="leave --mean, --std and --color out to keep the model's own inputs, or fix the size: "
            f"--input-shape 1,{channels},384,640",
        )
    if element_type(value) != "float32":
        raise BuildError(f"input {value.name!r} is {element_type(value)}", remedy="export the model in float32")

    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    image = feeds(fresh)[0]
    name, inner = image.name, f"{image.name}.normalized"
    for node in fresh.graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = inner
    batch = sizes[0] or BATCH
    image.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, (batch, sizes[2], sizes[3], channels)))
    steps = [
        helper.make_node("Cast", [name], [f"{name}.float"], f"{name}/cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", [f"{name}.float"], [f"{name}.nchw"], f"{name}/transpose", perm=(0, 3, 1, 2)),
    ]
    if any(camera.mean):
        fresh.graph.initializer.append(_per_channel(f"{name}.mean", camera.mean))
        steps.append(
            helper.make_node("Sub", [steps[-1].output[0], f"{name}.mean"], [f"{name}.centered"], f"{name}/mean")
        )
    if any(scale != 1 for scale in camera.std):
        fresh.graph.initializer.append(_per_channel(f"{name}.scale", [1 / std for std in camera.std]))
        steps.append(
            helper.make_node("Mul", [steps[-1].output[0], f"{name}.scale"], [f"{name}.scaled"], f"{name}/scale")
        )
    steps[-1].output[0] = inner
    body = list(fresh.graph.node)
    del fresh.graph.node[:]
    fresh.graph.node.extend([*steps, *body])
    return onnx.shape_inference.infer_shapes(fresh, data_prop=True)


def subtract_in_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Where the mean is still subtracted after fusion, do it before the Transpose, a whole image row at a time.

    The same numbers, but ONNX Runtime moves the Transpose behind the Sub whenever the first convolution wants its
    channels last, as integer ones do, and then broadcasts three values over every pixel: 12 ms of a 640x384 frame
    where a row of constants takes 0.3. TensorRT compiles both to the same kernels.

    Args:
        model: The fused graph; one without a camera's input comes back as it is.
    """
    found = camera_offset(model)
    width = dimensions(feeds(model)[0])[2] if found else ""
    if found is None or not isinstance(width, int) or len(consumers(model)[found.node.input[0]]) > 1:
        return model
    return _with_rows(model, found.node.name, found.transpose.name, np.tile(found.offset, (1, 1, width, 1)))


@dataclass(frozen=True)
class CameraOffset:
    """Where a camera's frames lose their mean.

    Attributes:
        transpose: The Transpose of the frames to channels first.
        node: The Add or Sub that reads it.
        offset: What it adds to each channel, `(C,)`: the mean, negative.
    """

    transpose: onnx.NodeProto
    node: onnx.NodeProto
    offset: npt.NDArray[np.float32]


def camera_offset(model: onnx.ModelProto) -> CameraOffset | None:
    """Where the mean is subtracted between a camera's input and the network; None where it is not."""
    made = {output: node for node in model.graph.node for output in node.output}
    values = constants(model)
    for node in model.graph.node:
        constant = values.get(node.input[1]) if node.op_type in ("Add", "Sub") else None
        transpose = made.get(node.input[0])
        if constant is None or transpose is None or transpose.op_type != "Transpose":
            continue
        cast = made.get(transpose.input[0])
        if cast is None or cast.op_type != "Cast" or cast.input[0] != feeds(model)[0].name:
            continue
        if constant.ndim in (3, 4) and constant.shape[-2:] == (1, 1) and constant.size == constant.shape[-3]:
            offset = constant.reshape(-1).astype(np.float32)
            return CameraOffset(transpose, node, -offset if node.op_type == "Sub" else offset)
    return None


def _with_rows(model: onnx.ModelProto, add: str, transpose: str, row: npt.NDArray[np.float32]) -> onnx.ModelProto:
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    by_name = {node.name: node for node in fresh.graph.node}
    first, second = by_name[transpose], by_name[add]
    constant = f"{second.input[1]}.row"
    replaced = next(tensor for tensor in fresh.graph.initializer if tensor.name == second.input[1])
    replaced.CopyFrom(numpy_helper.from_array(-row, constant))
    difference, result = f"{second.output[0]}.nhwc", second.output[0]
    swapped = [
        helper.make_node("Sub", [first.input[0], constant], [difference], add),
        helper.make_node("Transpose", [difference], [result], transpose, perm=(0, 3, 1, 2)),
    ]
    del fresh.graph.node[:]
    del fresh.graph.value_info[:]
    for node in model.graph.node:
        if node.name == add:
            fresh.graph.node.extend(swapped)
        elif node.name != transpose:
            fresh.graph.node.append(node)
    return onnx.shape_inference.infer_shapes(fresh, data_prop=True)


def _per_channel(name: str, values: Sequence[float]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32).reshape(1, -1, 1, 1), name)
