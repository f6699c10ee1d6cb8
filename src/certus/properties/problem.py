"""Problem: what a counterexample of a property is, as boxes of inputs and linear conditions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.graph import Graph
from certus.properties.case import Case, Shape
from certus.threats import Box


@dataclass(frozen=True, eq=False)
class Problem:
    """A counterexample is an input x that lies in the box of a case and, with y = f(x), satisfies it.

    The property is violated ("sat") where one exists and holds ("unsat") where none does, as for a
    problem without cases. inputs and outputs count the variables X_i and Y_j: the values of the network's
    input and output in row-major order. graph is the network, where it was given.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    graph: Graph | None = None

    def __repr__(self) -> str:
        """Its size."""
        return f"Problem(inputs={self.inputs}, outputs={self.outputs}, cases={len(self.cases)})"

    @property
    def mixed(self) -> bool:
        """Whether a condition speaks of inputs beyond the boxes."""
        return any(case.mixed for case in self.cases)

    @property
    def regions(self) -> list[Box]:
        """The box of every case, in the shape and dtype of the graph (else flat and float64)."""
        if self.graph is None:
            return [case.region() for case in self.cases]
        shape, dtype = self.graph.input_shape, self.graph.dtype
        return [case.region(shape, dtype) for case in self.cases]

    def region(self, shape: Shape | None = None, dtype: torch.dtype = torch.float64) -> Box:
        """All boxes as one batch [cases, *shape], as `Case.region`, for bounds of many cases at once."""
        if not self.cases:
            raise ArgumentError("a problem without cases has no region")
        form = (len(self.cases), *self.cases[0].region(shape).lower.shape[1:])
        low, high = (torch.stack([getattr(c, n) for c in self.cases]) for n in ("lower", "upper"))
        return Box(low.reshape(form), high.reshape(form), dtype)

    def satisfied(self, x: Tensor, y: Tensor, tolerance: float = 0.0) -> Tensor:
        """Bool [B]: whether x [B, *shape] with outputs y is a counterexample of some case.

        To replay one, y must come from the original model. See `Case.holds` for the tolerance.
        """
        found = [case.holds(x, y, tolerance) for case in self.cases]
        if not found:
            return torch.zeros(x.numel() // self.inputs, dtype=torch.bool)
        return torch.stack(found).any(dim=0)

    def select(self, kept: Sequence[int] | Tensor) -> "Problem":
        """The problem with some of its cases, by index."""
        return replace(self, cases=tuple(self.cases[int(i)] for i in kept))

    def attached(self, graph: Graph) -> "Problem":
        """The same problem about a network, whose numbers of inputs and outputs must fit."""
        sizes = torch.Size(graph.input_shape).numel(), torch.Size(graph.output_shape).numel()
        if sizes != (self.inputs, self.outputs):
            raise ArgumentError(
                f"the property is about {self.inputs} inputs and {self.outputs} outputs, "
                f"the network has {sizes[0]} and {sizes[1]}"
            )
        return replace(self, graph=graph)

    def sample(self, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """Points [count, inputs] from the boxes in turn."""
        if not self.cases:
            raise ArgumentError("a problem without cases has no points")
        used = self.cases[:count]
        shares = [count // len(used) + (i < count % len(used)) for i in range(len(used))]
        drawn = [
            c.sample(k, seed + i, dtype) for i, (c, k) in enumerate(zip(used, shares, strict=True))
        ]
        return torch.cat(drawn)

    def counterexample(self, x: Tensor, y: Tensor) -> str:
        """One point in VNN-COMP's format, `((X_0 0.5)\\n ... (Y_0 1.0))`, with every digit.

        A result file holds the line `sat` and then this text. Nothing is checked here: see `satisfied`.
        """
        if x.numel() != self.inputs or y.numel() != self.outputs:
            raise ArgumentError(
                f"a counterexample is {self.inputs} inputs and {self.outputs} outputs, "
                f"got {x.numel()} and {y.numel()}"
            )
        pairs = [
            f"({name}_{i} {value!r})"
            for name, tensor in (("X", x), ("Y", y))
            for i, value in enumerate(tensor.detach().double().flatten().tolist())
        ]
        return "(" + "\n".join(pairs) + ")"
