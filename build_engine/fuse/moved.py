from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from build_engine.fuse.algebra import NotExact, Reason


class MovedNodes:
    """Copies of nodes on other tensors, for forms relative to tensors that the graph does not have.

    A copy stands outside the graph until a chosen form reads it.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[ir.Node, ir.Value], ir.Node] = {}

    def __iter__(self) -> Iterator[ir.Node]:
        return iter(self._copies.values())

    def on(self, node: ir.Node, source: object) -> ir.Value:
        """The output of ``node``, had it read ``source``, which has the same image size.

        Raises:
            NotExact: A shape is unknown.
        """
        if not isinstance(source, ir.Value) or source.shape is None or node.outputs[0].shape is None:
            raise NotExact(Reason.UNKNOWN_SHAPE, "the shape of a source is unknown")
        key = (node, source)
        if key not in self._copies:
            name = f"{node.name or node.outputs[0].name}.on.{source.name}"
            copy = ir.node(
                node.op_type,
                [source, *node.inputs[1:]],
                attributes=dict(node.attributes),
                name=name,
                metadata_props=dict(node.metadata_props),
            )
            whole = list(node.outputs[0].shape)
            copy.outputs[0].name = f"{name}.out"
            copy.outputs[0].type = source.type
            copy.outputs[0].shape = ir.Shape([whole[0], source.shape[1], *whole[2:]])
            self._copies[key] = copy
        return self._copies[key].outputs[0]

    def forget_unused(self) -> None:
        """Takes the copies that stayed outside the graph off the tensors they read."""
        for copy in self._copies.values():
            if copy.graph is None:
                for index in range(len(copy.inputs)):
                    copy.replace_input_with(index, None)
