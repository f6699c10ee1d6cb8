"""What a builder of Graph operations sees of one fx node, and the table that builders enter.

A builder gets the node's arguments, appends operations and returns the position of the result (a
tuple of positions for an operation with several results, None for one that has no counterpart). It
raises `Unsupported` with a reason where this use of the operation has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from certus.graph.affine import Scale, Shift
from certus.graph.builder import Builder
from certus.graph.composite import align
from certus.graph.expression import Expression
from certus.graph.layout import Layout, Unsupported, sizes
from certus.graph.op import Op, Shape
from certus.graph.structural import Expand, Reshape, Slice

Position = int | tuple[int | None, ...]
Constant = Tensor | Expression
Build = Callable[["Arguments"], Position]
B = TypeVar("B", bound=Build)


@dataclass(frozen=True)
class Entry:
    """A builder; `anywhere` if it works in the free form too (see `Layout`).

    layout tells where the batch is in the result, for operations that move it.
    """

    build: Build
    anywhere: bool
    layout: Callable[["Arguments"], Layout] | None


BUILDERS: dict[str, Entry] = {}
PAIRS: dict[str, Entry] = {}  # for complex values, which a node holds as [*shape, 2]


def builds(
    *targets: str, anywhere: bool = False, layout: Callable[["Arguments"], Layout] | None = None
) -> Callable[[B], B]:
    """Decorator: use the function for these ATen targets."""

    def add(builder: B) -> B:
        for target in targets:
            BUILDERS[f"aten.{target}"] = Entry(builder, anywhere, layout)
        return builder

    return add


def pairs(*targets: str, anywhere: bool = False) -> Callable[[B], B]:
    """Decorator: use the function for these ATen targets where a tensor is complex."""

    def add(builder: B) -> B:
        for target in targets:
            PAIRS[f"aten.{target}"] = Entry(builder, anywhere, None)
            BUILDERS.setdefault(f"aten.{target}", PAIRS[f"aten.{target}"])
        return builder

    return add


def entry_of(node: fx.Node) -> Entry:
    """The builder of an fx node; Unsupported where it has none for complex values."""
    known = [n.meta.get("val") for n in (node, *node.all_input_nodes)]
    if not any(isinstance(v, Tensor) and v.is_complex() for v in known):
        return BUILDERS[str(node.target)]
    if str(node.target) not in PAIRS:
        raise Unsupported("on complex numbers")
    return PAIRS[str(node.target)]


def held(value: Tensor) -> Shape:
    """The shape for a batch of one in which a node holds a value: complex numbers are pairs."""
    return sizes(value.shape, 1) + ((2,) if value.is_complex() else ())


@dataclass(eq=False)
class Scope:
    """What is known of an exported program during a walk.

    position and layout map nodes that depend on the input (a tuple for each result of several);
    is_data tells those nodes; constant gives the value of any other for a batch of one.
    """

    builder: Builder
    is_data: Callable[[fx.Node], bool]
    constant: Callable[[fx.Node], Constant]
    parameters: Callable[[fx.Node], bool]
    position: dict[fx.Node, Any] = field(default_factory=dict)
    layout: dict[fx.Node, Any] = field(default_factory=dict)
    zero: int | None = None


class Arguments:
    """The arguments of one fx node, with names and defaults from the operation's schema."""

    def __init__(self, node: fx.Node, scope: Scope, source: str) -> None:
        self.node, self.scope, self.source = node, scope, source
        self.target = str(node.target).removeprefix("aten.")
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        self._named = {a.name: a.default_value for a in schema if a.has_default_value()}
        self._named |= dict(zip([a.name for a in schema], node.args, strict=False)) | node.kwargs
        inputs = [n for n in node.all_input_nodes if scope.is_data(n)]
        self.inputs = [(scope.layout[n], n.meta["val"].ndim) for n in inputs]
        self.results: list[Layout | None] = []
        self.free = False

    def settle(self, results: list[Layout | None]) -> None:
        """Say where the batch is in the results, which decides on the form in use."""
        self.results = results
        places = [layout for layout, _ in self.inputs] + [r for r in results if r is not None]
        self.free = not all(layout.standard for layout in places)

    def __getitem__(self, name: str) -> Any:
        """The argument as given: an fx node, a number, a list or None."""
        return self._named.get(name)

    def is_data(self, value: Any) -> bool:
        """Whether a value depends on the network's input."""
        return isinstance(value, fx.Node) and self.scope.is_data(value)

    def add(self, op: Op, *inputs: int) -> int:
        """Append an operation on positions."""
        same = isinstance(op, Reshape) and self.scope.builder.shape(inputs[0]) == op.shape
        return inputs[0] if same else self.scope.builder.add(op, *inputs, source=self.source)

    def shape(self, position: int) -> Shape:
        """Shape of a position without the batch."""
        return self.scope.builder.shape(position)

    def one(self, value: Any = None) -> Shape:
        """Shape in which an fx tensor (the result) is held for a batch of one."""
        value = self.node if value is None else value
        return held(value.meta["val"])

    def one_of(self, index: int) -> Shape:
        """Shape of one of several results for a batch of one."""
        return sizes(self.node.meta["val"][index].shape, 1)

    def canonical(self, value: Any = None) -> Shape:
        """Shape of the node for an fx tensor (for the result), in the form that is in use."""
        return self.one(value) if self.free else self.one(value)[1:]

    def x(self, name: str = "self", rank: int | None = None) -> int:
        """Position of a tensor argument; a constant becomes a node."""
        return self.at(self[name], rank)

    def at(self, value: Any, rank: int | None = None) -> int:
        """Position of a tensor in the form in use. rank: dimensions that a constant may have."""
        if not self.is_data(value):
            return self._constant_node(self.value(value), rank)
        position = self.scope.position[value]
        if self.free and self.scope.layout[value].standard:
            return self.add(Reshape((1, *self.shape(position))), position)
        return position

    def data(self, name: str = "self") -> int:
        """Position of an argument that must depend on the network's input."""
        if not self.is_data(self[name]):
            raise Unsupported(f"argument {name} is expected to depend on the input")
        return self.at(self[name])

    def layout(self, name: str = "self") -> Layout:
        """Where the batch is in an argument."""
        return self.scope.layout[self[name]]

    def ndim(self, name: str = "self") -> int:
        """Number of dimensions of a tensor argument, the batch among them."""
        return self[name].meta["val"].ndim

    def dim(self, dim: int, name: str = "self") -> int:
        """A dimension of the argument as a dimension of its node, which counts the batch as 0."""
        dim %= max(self.ndim(name), 1)
        if self.is_data(self[name]) and dim == self.layout(name).axis:
            raise Unsupported("along the batch")
        return dim + self.free

    def value(self, value: Any) -> Any:
        """A constant, `Tensor` or `Expression`; a number becomes a tensor in the network's dtype."""
        if isinstance(value, fx.Node):
            if self.scope.is_data(value):
                raise Unsupported(
                    "an argument that is expected to be constant depends on the input"
                )
            return self.scope.constant(value)
        like = self.scope.builder.like
        return torch.tensor(value, dtype=like.dtype, device=like.device)

    def constant(self, name: str) -> Any:
        """A tensor argument that depends on parameters alone (or None), live."""
        return None if self[name] is None else self.value(self[name])

    def fixed(self, value: Any) -> Tensor:
        """The value of a constant, as it is now: an index or a condition, never a parameter."""
        if isinstance(value, fx.Node) and self.scope.parameters(value):
            raise Unsupported("an index or a condition that is computed from parameters")
        found = self.value(value)
        return found.evaluate() if isinstance(found, Expression) else found

    def number(self, value: Any) -> float:
        """A number given as such or as a tensor with one element."""
        if isinstance(value, int | float):
            return float(value)
        found = self.fixed(value)
        if found.numel() != 1:
            raise Unsupported("a single number is expected")
        return float(found)

    def ints(self, name: str, dims: int, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers; one number stands for all dimensions, empty means the default."""
        found = self[name]
        values = [found] if isinstance(found, int) else list(found or default or [])
        if not all(isinstance(v, int) for v in values):
            raise Unsupported(f"{name} depends on the batch size")
        return tuple(values * dims if len(values) == 1 else values)

    def broadcasts(self, value: Any) -> None:
        """A constant may not differ along the batch of the result."""
        shape = value_shape(value)
        axis = self.result().axis - self.node.meta["val"].ndim
        if len(shape) >= -axis and shape[axis] != 1:
            raise Unsupported("a constant that differs along the batch")

    def aligned(self, *values: Any) -> None:
        """Operands that depend on the input must carry the batch in the same place."""
        places = {
            (layout.axis - v.meta["val"].ndim, layout.outer, layout.inner)
            for v in values
            if self.is_data(v)
            for layout in (self.scope.layout[v],)
        }
        if len(places) > 1:
            raise Unsupported("broadcasting that moves the batch dimension")

    def result(self) -> Layout:
        """Where the batch is in the (single) result."""
        assert self.results[0] is not None, "settled before the builder is called"
        return self.results[0]

    def _constant_node(self, value: Any, rank: int | None) -> int:
        """A constant as a node: zero times the input, plus the constant."""
        shape = value_shape(value)
        own = self.node.meta["val"]
        rank = rank if rank is not None or not isinstance(own, Tensor) else own.ndim
        if not self.free and rank is not None and len(shape) == rank:
            if shape[0] != 1:
                raise Unsupported("a constant that differs along the batch")
            shape = shape[1:]
        if self.scope.zero is None:
            flat = self.add(Reshape((torch.Size(self.shape(0)).numel(),)), 0)
            zero = self.scope.builder.like.new_zeros(())
            self.scope.zero = self.add(Scale(zero), self.add(Slice(1, 0, 1), flat))
        spread = self.add(Reshape((1,) * len(shape)), self.scope.zero)
        return self.add(Shift(value), self.add(Expand(shape), spread))

    def pair(self, x: int, y: int) -> tuple[int, int]:
        """Positions with one number of dimensions."""
        ndim = max(len(self.shape(x)), len(self.shape(y)))
        builder = self.scope.builder
        return align(builder, x, ndim, self.source), align(builder, y, ndim, self.source)


def value_shape(value: Any) -> Shape:
    """Shape of a constant (for a batch of one)."""
    if isinstance(value, Expression):
        return sizes(value.node.meta["val"].shape, 1)
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def viewed(value: Any, shape: Sequence[int]) -> Any:
    """A constant in another shape of as many elements, live."""
    return applied(value, torch.ops.aten.reshape.default, list(shape))


def applied(value: Constant, function: Any, *rest: Any, **named: Any) -> Any:
    """A function of torch of a constant, live."""
    known: dict[fx.Node, Any] = {}
    graph = fx.Graph()
    if isinstance(value, Expression):
        source, known = value.node, value.known
    else:
        source = graph.placeholder("value")
        source.meta["val"], known = value, {source: value}
    node = graph.call_function(function, (source, *rest), named)
    now = value.evaluate() if isinstance(value, Expression) else value
    node.meta["val"] = function(now.detach(), *rest, **named)
    return Expression(node, known)
