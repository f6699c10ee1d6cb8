"""What a builder of Graph operations sees of one fx node, and the table that builders enter.

A builder gets the node's arguments and returns (operation, data inputs), or the fx node whose value
it passes through. It raises `Unsupported` with a reason otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from certus.graph.op import Op

Built = tuple[Op, tuple[fx.Node, ...]] | fx.Node
BUILDERS: dict[str, Callable[["Arguments"], Built]] = {}


class Unsupported(Exception):  # noqa: N818  (internal signal, becomes an UnsupportedError)
    """This use of an operation has no sound counterpart; the text says why."""


class Arguments:
    """The arguments of one fx node, with names and defaults from the operation's schema."""

    def __init__(self, node: fx.Node, is_data: Callable[[fx.Node], bool], value: Any) -> None:
        self.node, self.is_data, self._value = node, is_data, value
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        self._named = {a.name: a.default_value for a in schema if a.has_default_value()}
        self._named |= dict(zip([a.name for a in schema], node.args, strict=False)) | node.kwargs

    def __getitem__(self, name: str) -> Any:
        """The argument as given: an fx node, a number, a list or None."""
        return self._named.get(name)

    def data(self, name: str) -> fx.Node:
        """An argument that depends on the network's input."""
        found = self[name]
        if not isinstance(found, fx.Node) or not self.is_data(found):
            raise Unsupported(f"argument {name} is expected to depend on the input")
        return found

    def constant(self, name: str) -> Any:
        """A tensor argument that depends on parameters alone (or None)."""
        found = self[name]
        if not isinstance(found, fx.Node):
            return found
        if self.is_data(found):
            raise Unsupported(f"argument {name} depends on the input")
        return self._value(found)

    def shape(self, node: fx.Node | None = None) -> tuple[int, ...]:
        """Shape of a node's value without the batch; refuses shapes that mix the batch in."""
        return fixed_shape(node or self.node)

    def ints(self, name: str, dims: int, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers; one number stands for all dimensions, empty means the default."""
        found = self[name]
        values = [found] if isinstance(found, int) else list(found or default or [])
        return tuple(values * dims if len(values) == 1 else values)


def fixed_shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of one element of the batch; Unsupported where dimension 0 is not the plain batch."""
    shape = node.meta["val"].shape
    if len(shape) == 0 or isinstance(shape[0], int):
        raise Unsupported("the result has no batch dimension in front")
    if not shape[0].node.expr.is_Symbol:
        raise Unsupported("the batch dimension is mixed with others")
    rest = tuple(shape[1:])
    if not all(isinstance(d, int) for d in rest):
        raise Unsupported("a dimension other than the first depends on the batch")
    return rest


def builds(*targets: str) -> Callable[[Callable[[Arguments], Built]], Callable[[Arguments], Built]]:
    """Decorator: use the function for these ATen targets."""

    def add(builder: Callable[[Arguments], Built]) -> Callable[[Arguments], Built]:
        for target in targets:
            BUILDERS[f"aten.{target}"] = builder
        return builder

    return add
