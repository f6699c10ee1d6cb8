"""The key of a training: what a snapshot must find again before it goes on."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, fx, nn

from certus.core import ArgumentError
from certus.graph import Graph
from certus.graph.expression import Expression
from certus.training.identity import identity
from certus.training.loss import Loss
from certus.training.plan import Plan

_TOLD = {"model": "the model", "data": "the data", "loss": "the loss", "plan": "the plan"}


def key_of(graph: Graph, still: Iterable[str], loss: Loss, plan: Plan, x: Tensor, y: Tensor) -> str:
    """`model=... data=... loss=... plan=...`, each a hash; taken before the first step.

    The model counts with its operations, initial weights, what of them trains, and the parts that
    stay in evaluation mode. Raises ArgumentError for what has no identity beyond this process.
    """
    module = graph.original
    assert isinstance(module, nn.Module)
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    named |= dict(module.named_buffers(remove_duplicate=False))
    names = {id(t): name for name, t in reversed(named.items())}
    model = (_operations(graph, names), named, sorted(still))
    parts = {"model": model, "data": (x, y), "loss": loss, "plan": plan}
    return " ".join(f"{what}={identity(value, _TOLD[what])}" for what, value in parts.items())


def difference(held: str, asked: str) -> str:
    """Which parts of two keys differ, in words."""
    own, other = set(held.split()), set(asked.split())
    wrong = [part.partition("=")[0] for part in asked.split() if part in other - own]
    return ", ".join(_TOLD.get(name, name) for name in wrong) or "all"


def check_unchanged(loss: Loss, key: str) -> None:
    """Refuse a loss that has changed since the key was taken: its state would be lost on resuming."""
    if f"loss={identity(loss, _TOLD['loss'])}" not in key.split():
        raise ArgumentError(
            "the loss keeps state that changes while it trains, which a snapshot does not hold; "
            "derive it from the moment, or train without a snapshot"
        )


def _operations(graph: Graph, names: dict[int, str]) -> list[Any]:
    """The graph as plain values; tensors of the module by name, since they change."""

    def plain(value: Any) -> Any:
        if isinstance(value, Expression):
            return _formula(value, names)
        if isinstance(value, Tensor):
            return names.get(id(value), value)
        return value

    return [
        (
            type(node.op).__name__,
            node.inputs,
            node.shape,
            [(f.name, plain(getattr(node.op, f.name))) for f in fields(node.op)],
        )
        for node in graph.nodes
    ] + [graph.output]


def _formula(expression: Expression, names: dict[int, str]) -> list[Any]:
    """A computed parameter: its operations in order, each with places of what it reads."""
    places: dict[fx.Node, int] = {}
    rows: list[Any] = []

    def place(node: fx.Node) -> int:
        if node not in places:
            if node in expression.known:
                known = expression.known[node]
                row: Any = names.get(id(known), known)
            else:
                row = (str(node.target), plain(node.args), sorted(plain(node.kwargs).items()))
            places[node] = len(rows)
            rows.append(row)
        return places[node]

    def plain(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return ("at", place(value))
        if isinstance(value, tuple | list):
            return [plain(part) for part in value]
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, slice):
            return ("slice", plain(value.start), plain(value.stop), plain(value.step))
        return str(value) if isinstance(value, torch.SymInt) else value

    place(expression.node)
    return rows
