"""A meter whose rows pay at the nodes that they pass, for what an evaluation may lose there."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.bounding.gamma import less, more
from certus.bounding.meter import Meter
from certus.bounding.rows import Rows
from certus.bounding.state import State


@dataclass(frozen=True, eq=False)
class Charge:
    """What a row R pays at a node: <|R|, per_row> + fixed; [B, *shape] (None: nothing) and [B]."""

    per_row: Tensor | None
    fixed: Tensor


@dataclass(frozen=True, eq=False)
class ChargedState(State):
    """A state whose intervals hold every evaluation, with the charges of nodes met so far."""

    charges: dict[int, Charge] = field(default_factory=dict, init=False)


class Charging(Meter):
    """Adds up what rows pay, and subtracts it in the end. Gradients leave the charges out."""

    def __init__(self) -> None:
        self.slack: Tensor | None = None  # [R, B], as the total

    @torch.no_grad()
    def pay(self, charge: Charge, rows: Rows, keep: bool = True) -> None:
        """Add <|row|, per_row> + fixed for every row; keep: whether the charge is the state's own."""
        paid = rows.of_inputs(charge.fixed)
        if charge.per_row is not None:
            paid = paid + more(rows.weigh(charge.per_row, keep), rows.coefs[0, 0].numel())
        self.add(paid)

    @torch.no_grad()
    def add(self, paid: Tensor) -> None:
        """Add to the slack, rounded up."""
        self.slack = paid if self.slack is None else more(self.slack + paid)

    def double(self) -> None:
        """A row and its negative pay the same."""
        if self.slack is not None:
            self.slack = torch.cat([self.slack, self.slack])

    def result(self, total: Tensor) -> Tensor:
        """The total less what was paid; NaN where nothing is known."""
        if self.slack is None:
            return less(total)
        return less(total - self.slack.expand(-1, total.shape[1]))
