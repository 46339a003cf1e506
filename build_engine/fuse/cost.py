from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import onnx
import onnx_ir as ir

from build_engine.fuse.options import FuseOptions

# Operators that a runtime resolves without running anything.
VIEWS = frozenset({"Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_VECTOR_CHANNELS = 16
"""Groups that read fewer channels leave vector units partly empty: fitted, as in `FuseOptions.for_target`."""
_MATRIX_PRODUCTS = frozenset({"Gemm", "MatMul"})


@dataclass(frozen=True)
class Cost:
    """What a graph, or a part of one, does for one inference.

    Args:
        convolutions: Conv and ConvTranspose nodes.
        nodes: ONNX nodes, constants apart.
        macs: Multiply-accumulates of convolutions and matrix products.
        parameters: Elements of constant floating-point tensors.
        activation_bytes: The peak of live tensors while it runs in its own order, what it reads included.
        launches: Nodes that run something, views apart.
    """

    convolutions: int = 0
    nodes: int = 0
    macs: int = 0
    parameters: int = 0
    activation_bytes: int = 0
    launches: int = 0

    def to_dict(self) -> dict[str, int]:
        """JSON-able."""
        return asdict(self)


def tensor_bytes(value: ir.Value | None, options: FuseOptions) -> int:
    """Size of a tensor for one inference; 0 where its rank or type is unknown."""
    if value is None or value.shape is None or value.dtype is None:
        return 0
    return math.ceil(math.prod(assumed_sizes(value, options)) * value.dtype.itemsize)


def assumed_sizes(value: ir.Value | None, options: FuseOptions) -> tuple[int, ...]:
    """A tensor's sizes with open ones filled in: batch 1, `FuseOptions.symbolic_size` elsewhere."""
    if value is None or value.shape is None:
        return ()
    return tuple(
        dim if isinstance(dim, int) else (1 if axis == 0 or str(dim) in options.batch_names else options.symbolic_size)
        for axis, dim in enumerate(value.shape)
    )


def sized_for(graph: ir.Graph, options: FuseOptions) -> FuseOptions:
    """Options that know what a graph calls its batch: exporters transpose it to other axes.

    Where nothing but the batch is open, every size that is open inside follows from it and counts as 1 too.
    """
    shapes = [list(value.shape) for value in graph.inputs if value.shape is not None and not value.is_initializer()]
    batches = {str(shape[0]) for shape in shapes if shape and not isinstance(shape[0], int)} - {"None"}
    rest = {str(dim) for shape in shapes for dim in shape[1:] if not isinstance(dim, int)}
    return replace(
        options,
        batch_names=options.batch_names | (batches - rest),
        symbolic_size=options.symbolic_size if rest - batches else 1,
    )


def node_macs(node: ir.Node, options: FuseOptions) -> int:
    """Multiply-accumulates of one node."""
    if len(node.inputs) < 2 or node.inputs[0] is None or node.inputs[1] is None:
        return 0
    weight, output = node.inputs[1], node.outputs[0]
    if weight.shape is None or output.shape is None:
        return 0
    if node.op_type == "Conv":
        return math.prod(assumed_sizes(output, options)) * math.prod(assumed_sizes(weight, options)[1:])
    if node.op_type == "ConvTranspose":
        taps = math.prod(assumed_sizes(weight, options)[1:])
        return math.prod(assumed_sizes(node.inputs[0], options)) * taps
    if node.op_type in _MATRIX_PRODUCTS:
        left = assumed_sizes(node.inputs[0], options)
        return math.prod(assumed_sizes(output, options)) * left[0 if _transposed(node) else -1] if left else 0
    return 0


def macs_ns(macs: float, group_channels: int, groups: int, options: FuseOptions) -> float:
    """The cost model's estimate for a convolution's arithmetic.

    Args:
        macs: Multiply-accumulates.
        group_channels: Channels that each group reads.
        groups: How many there are.
        options: The cost model.
    """
    is_narrow = groups > 1 and group_channels < _VECTOR_CHANNELS
    return macs * options.ns_per_mac * (options.narrow_mac_factor if is_narrow else 1.0)


def _transposed(node: ir.Node) -> bool:
    attribute = node.attributes.get("transA")
    return attribute is not None and bool(attribute.as_int())


def is_constant(value: ir.Value | None) -> bool:
    """Whether a tensor's value is part of the model."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def node_ns(node: ir.Node, options: FuseOptions) -> float:
    """The cost model's estimate for a node left as it is."""
    if node.op_type in VIEWS:
        return 0.0
    moved = sum(tensor_bytes(value, options) for value in {*node.inputs, *node.outputs})
    group = node.attributes.get("group") if node.op_type in CONVOLUTIONS else None
    groups = 1 if group is None else group.as_int()
    channels = 0
    if groups > 1:
        weight = assumed_sizes(node.inputs[1], options)  # (C_out, C_in/groups, ...), of Conv; (C_in, ...) of the other
        channels = (weight[1] if node.op_type == "Conv" else weight[0] // groups) if weight else 0
    arithmetic = macs_ns(node_macs(node, options), channels, groups, options)
    return arithmetic + moved * options.ns_per_byte + options.ns_per_launch


@dataclass(frozen=True)
class LiveStep:
    """One step of a graph, views apart.

    Args:
        node: The node that runs, by name or else by operator and output.
        operator: Its operator.
        live_bytes: Tensors alive while it does, its own output included.
    """

    node: str
    operator: str
    live_bytes: int


def cost_of(nodes: Iterable[ir.Node], options: FuseOptions) -> Cost:
    """The cost of a graph, or of a region, whose nodes come in an order they can run in; every weight counts once."""
    listed = [node for node in nodes if node.op_type != "Constant"]
    weights = {v for node in listed for v in node.inputs if v is not None and is_constant(v)}
    return Cost(
        convolutions=sum(node.op_type in CONVOLUTIONS for node in listed),
        nodes=len(listed),
        macs=sum(node_macs(node, options) for node in listed),
        parameters=sum(
            math.prod(assumed_sizes(w, options)) for w in weights if w.dtype is not None and w.dtype.is_floating_point()
        ),
        activation_bytes=max((step.live_bytes for step in live_steps(listed, options)), default=0),
        launches=sum(node.op_type not in VIEWS for node in listed),
    )


def live_steps(nodes: Iterable[ir.Node], options: FuseOptions) -> tuple[LiveStep, ...]:
    """Bytes of the tensors alive at each step; views share their source.

    What the nodes read from elsewhere is alive from the start to its last reader among them, what others read or the
    graph gives is alive to the end.

    Args:
        nodes: In the order they run.
        options: Sizes to assume where the model leaves them open.
    """
    order = list(nodes)
    inside = set(order)
    owner: dict[ir.Value, ir.Value] = {}
    last: dict[ir.Value, int] = {}

    def storage(value: ir.Value) -> ir.Value:
        return owner.get(value, value)

    for step, node in enumerate(order):
        for value in node.inputs:
            if value is not None and not is_constant(value):
                last[storage(value)] = step
        if node.op_type in VIEWS and node.inputs and node.inputs[0] is not None:
            owner[node.outputs[0]] = storage(node.inputs[0])
    for node in order:
        for value in node.outputs:
            if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                last[storage(value)] = len(order)
    alive = {v: tensor_bytes(v, options) for v in last if v.producer() not in inside}
    now = sum(alive.values())
    steps = []
    for step, node in enumerate(order):
        for value in node.outputs:
            if value not in owner and node.op_type != "Constant":
                alive[value] = tensor_bytes(value, options)
                now += alive[value]
        if node.op_type not in VIEWS:
            steps.append(LiveStep(node.name or f"{node.op_type}:{node.outputs[0].name}", node.op_type, now))
        for value in [v for v in alive if last.get(v, step) <= step]:
            now -= alive.pop(value)
    return tuple(steps)


def count(model: onnx.ModelProto, options: FuseOptions | None = None) -> Cost:
    """What a model does for one inference.

    Args:
        model: Any ONNX model; shapes are inferred where they are missing.
        options: Sizes to assume where the model leaves them open. None means default.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = ir.serde.deserialize_model(inferred).graph
    return cost_of(graph, sized_for(graph, options or FuseOptions()))
