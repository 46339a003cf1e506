from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import nn

EXPORTERS = ("dynamo", "dynamo-unoptimized", "torchscript")


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """A module in inference mode whose batch norms have seen something."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor, low, high in (
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.3, 2.0),
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.5, 0.5),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return module.eval()


def exported(
    module: nn.Module,
    shape: tuple[int, ...],
    exporter: str = "dynamo",
    *,
    dynamic: tuple[int, ...] = (),
    opset: int | None = None,
) -> onnx.ModelProto:
    """A module as ONNX, by one of PyTorch's exporters; ``dynamic`` lists the axes left open."""
    sample = torch.rand(shape)
    with warnings.catch_warnings():
        # Only the exporters' own: DeprecationWarning of the TorchScript one, FutureWarning of torch.export,
        # TracerWarning where a module looks at shapes.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        if exporter == "torchscript":
            buffer = io.BytesIO()
            axes = {axis: f"d{axis}" for axis in dynamic}
            torch.onnx.export(
                module,
                (sample,),
                buffer,
                dynamo=False,
                input_names=["x"],
                output_names=["y"],
                dynamic_axes={"x": axes, "y": axes} if dynamic else None,
                opset_version=opset or 17,
            )
            return onnx.load_model_from_string(buffer.getvalue())
        program = torch.onnx.export(
            module,
            (sample,),
            dynamo=True,
            optimize=exporter == "dynamo",
            verbose=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({axis: torch.export.Dim.DYNAMIC for axis in dynamic},) if dynamic else None,
            opset_version=opset,
        )
        assert program is not None
        return program.model_proto
