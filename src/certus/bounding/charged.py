"""A reverse walk whose rows pay at the nodes that they pass, for what an evaluation may lose there."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.bounding.backward import Rows, Walk
from certus.bounding.base import State
from certus.bounding.gamma import less, more
from certus.bounding.windows import Windows
from certus.threats.box import inner


@dataclass(frozen=True, eq=False)
class Charge:
    """What a row R pays at a node: <|R|, per_row> + fixed; [B, *shape] (None: nothing) and [B]."""

    per_row: Tensor | None
    fixed: Tensor


@dataclass(frozen=True, eq=False)
class ChargedState(State):
    """A state whose intervals hold every evaluation, with the charges of nodes met so far."""

    charges: dict[int, Charge] = field(default_factory=dict)


@dataclass(eq=False)
class ChargedWalk(Walk):
    """A walk that adds up what its rows pay and subtracts it. Gradients leave the charges out."""

    slack: Tensor | None = None

    def run(self, start: int, rows: Rows) -> Tensor:
        """Lower bounds [R, B], or [2 R, B] for both; NaN where nothing is known."""
        found = super().run(start, rows)
        if self.slack is None:
            return less(found)
        return less(found - self.slack.expand(-1, found.shape[1]))

    def _double(self) -> None:
        """A row and its negative pay the same."""
        before = self.doubled
        super()._double()
        if self.doubled and not before and self.slack is not None:
            self.slack = torch.cat([self.slack, self.slack])

    def _leave_windows(self) -> None:
        """As the total, slack of rows of one input becomes a column."""
        before = self.small
        super()._leave_windows()
        if before and self.single and self.slack is not None:
            self.slack = self.slack.reshape(-1, 1)

    @torch.no_grad()
    def _pay(self, charge: Charge, rows: Rows, keep: bool = True) -> None:
        """Add <|row|, per_row> + fixed for every row; keep: whether the charge is the state's own."""
        if isinstance(rows, Windows):
            paid = charge.fixed[rows.batch].expand(len(rows.coefs), -1)
            if charge.per_row is not None:
                weighed = (rows.coefs.abs() * rows.gather(charge.per_row, keep)).flatten(2).sum(2)
                paid = paid + more(weighed, rows.coefs[0, 0].numel())
            if self.single and not self.small:  # the walk has gone over to whole maps meanwhile
                paid = paid.reshape(-1, 1)
            return self._add(paid)
        pick = slice(None) if self.pick is None else self.pick
        paid = charge.fixed[pick].expand(len(rows), -1)
        if charge.per_row is not None:
            paid = paid + more(inner(rows.abs(), charge.per_row[pick]), rows[0, 0].numel())
        return self._add(paid)

    @torch.no_grad()
    def _add(self, paid: Tensor) -> None:
        """Add to the slack, rounded up."""
        self.slack = paid if self.slack is None else more(self.slack + paid)
