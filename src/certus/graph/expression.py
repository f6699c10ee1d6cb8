"""Parameters that are computed from other parameters, such as an orthogonal weight."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Expression:
    """A torch.fx node that depends on parameters alone; evaluated anew, so that it stays live.

    known maps the fx nodes of parameters, buffers and constants to their tensors.
    """

    node: torch.fx.Node
    known: dict[torch.fx.Node, Tensor]

    def evaluate(self) -> Tensor:
        """The present value; differentiable with respect to the parameters."""
        return _value(self.node, dict(self.known))

    def written(self) -> str:
        """The calls that it is made of, its tensors by their number."""
        numbers = {node: f"%{i}" for i, node in enumerate(self.known)}

        def look(node: torch.fx.Node) -> str:
            if node not in numbers:
                numbers[node] = f"%{len(numbers)}"
                arguments = torch.fx.map_arg((node.args, node.kwargs), look)
                lines.append(f"{numbers[node]} = {node.target}{arguments}")
            return numbers[node]

        lines: list[str] = []
        look(self.node)
        return "; ".join(lines)


def _value(node: torch.fx.Node, done: dict[torch.fx.Node, Any]) -> Any:
    if node not in done:

        def look(arg: torch.fx.Node) -> Any:
            return _value(arg, done)

        args = torch.fx.map_arg(node.args, look)
        kwargs = torch.fx.map_arg(node.kwargs, look)
        done[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return done[node]
