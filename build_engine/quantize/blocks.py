"""The layer that reads a camera's bytes, on integers: pixels side by side become channels.

A dot-product instruction takes four channels at once and a frame has three, so on integers a first layer is slower
than in float; in float, a cast, a subtraction, two changes of layout and a rounding come on top. In channels-last bytes
`W` pixels of `C` channels *are* `W/b` blocks of `b * C` channels; a convolution over blocks computes the layer for the
`b / stride` output pixels of each block. Its weights are the layer's own, at their places, and zeros. The bytes are its
quantized input as they come: a step is one, the zero point is the camera's mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from build_engine.graph import constants, consumers, dimensions, feeds
from build_engine.quantize.rewrite import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, rewritten
from build_engine.quantize.weights import attributes

CHANNELS_AT_ONCE = 4
"""Channels that a dot-product instruction takes."""


@dataclass(frozen=True)
class Blocks:
    """How a layer reads a frame in blocks.

    Attributes:
        node: Name of the layer, a convolution.
        frames: Name of the graph's input, `(N, H, W, C)` bytes.
        tensor: Name of what the layer reads in the float graph, the mean subtracted.
        mean: What is subtracted from each channel, `(C,)`.
        zero_point: The byte that counts as zero: the mean, rounded and the same for every channel. A bias makes up for
            the difference, but at the border, where padding holds this value and not each channel's own mean.
        size: `(H, W, C)` of a frame.
        pixels: Pixels of a row in a block.
        outputs: Output pixels of a row for each block.
    """

    node: str
    frames: str
    tensor: str
    mean: npt.NDArray[np.float64]
    zero_point: int
    size: tuple[int, int, int]
    pixels: int
    outputs: int

    @property
    def limits(self) -> tuple[float, float]:
        """The range of the layer's input for which a step is one byte."""
        return float(-self.zero_point), float(255 - self.zero_point)


def find_blocks(model: onnx.ModelProto, name: str) -> Blocks | None:
    """How a convolution can read a camera's bytes in blocks; None where it cannot.

    It can where nothing but Cast, Transpose and the mean stand between a `uint8` input of known size and the layer,
    the layer has weights and a bias, is neither grouped nor dilated and makes one output pixel per stride,
    and rows divide into blocks.

    Args:
        model: A float graph with inferred shapes.
        name: Name of the convolution.
    """
    node = next(node for node in model.graph.node if node.name == name)
    image = feeds(model)[0]
    size = dimensions(image)[1:]
    if image.type.tensor_type.elem_type != TensorProto.UINT8 or len(size) != 3 or node.op_type != "Conv":
        return None
    if not all(isinstance(length, int) for length in size) or len(node.input) != 3:
        return None
    fixed, given = constants(model), attributes(node)
    height, width, channels = (int(length) for length in size)
    mean, weight = _mean(model, node.input[0], image.name, channels), fixed.get(node.input[1])
    stride = given.get("strides", [1, 1])[1]
    pixels = math.lcm(CHANNELS_AT_ONCE // math.gcd(channels, CHANNELS_AT_ONCE), stride)
    shapes = {value.name: dimensions(value) for value in model.graph.value_info}  # an output would be in blocks too
    made = shapes.get(node.output[0], ())
    if mean is None or weight is None or weight.ndim != 4 or weight.shape[1] != channels or width % pixels:
        return None
    if len(made) != 4 or not isinstance(made[2], int) or made[3] != width // stride:
        return None
    if any(d != 1 for d in given.get("dilations", [1])) or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    zero_point = int(np.clip(np.round(mean.mean()), 0, 255))
    return Blocks(
        name, image.name, node.input[0], mean, zero_point, (height, width, channels), pixels, pixels // stride
    )


def _mean(model: onnx.ModelProto, name: str, image: str, channels: int) -> npt.NDArray[np.float64] | None:
    """What is subtracted per channel on the way from the image; None where anything else happens there."""
    made = {output: node for node in model.graph.node for output in node.output}
    fixed = constants(model)
    mean, kinds = np.zeros(channels), []
    while name != image:
        node = made.get(name)
        if node is None or node.op_type not in ("Cast", "Transpose", "Sub", "Add"):
            return None
        kinds.append(node.op_type)
        if node.op_type == "Transpose" and tuple(attributes(node).get("perm", ())) != TO_CHANNELS_FIRST:
            return None
        if node.op_type in ("Sub", "Add"):
            constant = fixed.get(node.input[1])
            if constant is None:
                return None
            last = constant if "Transpose" in kinds else np.moveaxis(np.atleast_3d(constant), -3, -1)
            rows = np.broadcast_to(last, (*last.shape[:-1], channels)).reshape(-1, channels)
            if not (rows == rows[0]).all():
                return None
            mean += rows[0] if node.op_type == "Sub" else -rows[0]
        name = node.input[0]
    return mean if kinds.count("Transpose") == 1 else None


def read_in_blocks(model: onnx.ModelProto, blocks: Blocks) -> onnx.ModelProto:
    """Let a quantized layer read the bytes themselves.

    Args:
        model: The graph with Q/DQ pairs; the layer's input has the range `blocks.limits`, and its output is quantized.
        blocks: From the float graph.
    """
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    made = {output: node for node in fresh.graph.node for output in node.output}
    layer = next(node for node in fresh.graph.node if node.name == blocks.node)
    pair, weight, bias = (made[name] for name in layer.input)
    (rounding,) = consumers(fresh)[layer.output[0]]
    fixed, given = constants(fresh), attributes(layer)
    filters = fixed[weight.input[0]]
    top, left, bottom, _ = given.get("pads", (0, 0, 0, 0))
    stride_y, stride_x = given.get("strides", (1, 1))
    wide, before, behind = _widened(filters, int(stride_x), int(left), blocks)
    shift = np.einsum("ochw,c->o", filters.astype(np.float64), blocks.zero_point - blocks.mean)
    own: dict[str, npt.NDArray[Any]] = {}  # another layer may read the same weights or the same biases
    nodes = []
    for place, dequantized, values in (
        (1, weight, wide),
        (2, bias, _repeated(fixed[bias.input[0]] + shift.round(), blocks, np.int32)),
    ):
        names = [f"{blocks.node}.blocks/{name}" for name in (*dequantized.input, dequantized.output[0])]
        scales = (_repeated(fixed[name], blocks, fixed[name].dtype) for name in dequantized.input[1:])
        own |= dict(zip(names[:-1], (values, *scales), strict=True))
        nodes.append(helper.make_node("DequantizeLinear", names[:-1], names[-1:], names[-1], axis=0))
        layer.input[place] = names[-1]
    height, width, channels = blocks.size
    rows = (height + top + bottom - filters.shape[2]) // stride_y + 1
    columns = width // blocks.pixels
    shapes = {
        f"{blocks.node}.blocks": np.array([0, height, columns, blocks.pixels * channels]),
        f"{blocks.node}.pixels": np.array([0, rows, columns * blocks.outputs, len(filters)]),
    }
    del layer.attribute[:]
    layer.attribute.append(helper.make_attribute("kernel_shape", wide.shape[2:]))
    layer.attribute.append(helper.make_attribute("pads", (top, before, bottom, behind)))
    layer.attribute.append(helper.make_attribute("strides", (stride_y, 1)))

    into, out_of = shapes
    quantized, rounding.output[0], layer.input[0] = rounding.output[0], f"{out_of}.first", f"{into}.float"
    nodes += [
        helper.make_node("Reshape", [blocks.frames, into], [f"{into}.last"], into),
        helper.make_node("Transpose", [f"{into}.last"], [f"{into}.first"], f"{into}.first", perm=TO_CHANNELS_FIRST),
        helper.make_node("DequantizeLinear", [f"{into}.first", *pair.input[1:]], [f"{into}.float"], f"{into}.float"),
    ]
    for node in fresh.graph.node:
        nodes.append(node)
        if node is rounding:
            nodes += [
                helper.make_node("Transpose", [node.output[0]], [f"{out_of}.last"], out_of, perm=TO_CHANNELS_LAST),
                helper.make_node("Reshape", [f"{out_of}.last", out_of], [f"{out_of}.parted"], f"{out_of}.parted"),
                helper.make_node(
                    "Transpose", [f"{out_of}.parted"], [quantized], f"{out_of}.first", perm=TO_CHANNELS_FIRST
                ),
            ]
    return rewritten(fresh, nodes, own | shapes)


def _widened(
    filters: npt.NDArray[np.int8], stride: int, padding: int, blocks: Blocks
) -> tuple[npt.NDArray[np.int8], int, int]:
    """Filters over blocks, and how many blocks of padding they need before and behind a row.

    Args:
        filters: `(C_out, C, kH, kW)`.
        stride: Of a row.
        padding: Pixels before a row.
        blocks: What is in a block.

    Returns:
        `(outputs * C_out, pixels * C, kH, blocks read)`: in the order of channels-last pixels.
    """
    c_out, channels, rows, taps = filters.shape
    first, last = -padding // blocks.pixels, (stride * (blocks.outputs - 1) - padding + taps - 1) // blocks.pixels
    wide = np.zeros((blocks.outputs, c_out, blocks.pixels, channels, rows, last - first + 1), np.int8)
    for output in range(blocks.outputs):
        for tap in range(taps):
            block, pixel = divmod(stride * output - padding + tap, blocks.pixels)
            wide[output, :, pixel, :, :, block - first] = filters[:, :, :, tap]
    return wide.reshape(blocks.outputs * c_out, blocks.pixels * channels, rows, -1), -first, last


def _repeated(per_channel: npt.NDArray[Any], blocks: Blocks, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.tile(per_channel, blocks.outputs).astype(dtype)
