"""What a proof about logits says of the probabilities that a model makes of them.

A certificate is about what the original evaluates to, and float probabilities tie where logits do not: 1 /
(1 + exp(-20)) is 1 in float32. So margins of logits count only above `apart`, which is what the last
operation needs to keep two of its values apart, whatever its rounding errors (those that the guard charges).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.bounding.engine import Engine
from certus.certifiers.base import Answer
from certus.graph.activation import Sigmoid
from certus.graph.ending import Ending
from certus.graph.softmax import Softmax

_WHOLE = 1.0  # beyond it the linear estimate of exp below does not hold


@dataclass(frozen=True, eq=False)
class Tail:
    """The end of a classifier with K outputs in an engine's arithmetic, for B inputs.

    low, high [B]: the range of the label's logit in every evaluation, of float64.
    """

    ending: Ending
    engine: Engine
    low: Tensor
    high: Tensor

    @property
    def classes(self) -> int:
        """K."""
        return self.ending.logits.output_shape[0]

    def apart(self) -> Tensor:
        """[B]: where the evaluated logit of the label exceeds another by more, the output does too.

        Infinite where nothing keeps outputs apart; then nothing is proven.
        """
        if isinstance(self.ending.op, Sigmoid):
            needed = torch.maximum(self._sigmoid(self.low), self._sigmoid(self.high))
        elif isinstance(self.ending.op, Softmax):
            needed = torch.full_like(self.low, self._softmax())
        else:
            needed = self._log_softmax()
        return torch.where(needed >= 0, needed, math.inf)

    def margin(self, least: Tensor) -> Tensor:
        """[B]: a lower bound of the outputs' margin, for a lower bound of that of the logits."""
        if isinstance(self.ending.op, Sigmoid):
            falls = [z.sigmoid() - (z - least).sigmoid() for z in (self.low, self.high)]
            above = torch.minimum(*falls)
            return torch.where(least > 0, above, (least / 4).tanh())
        if isinstance(self.ending.op, Softmax):
            rest = (-least.clamp(min=0)).exp()
            above = -(-least.clamp(min=0)).expm1() / (1 + (self.classes - 1) * rest)
            return torch.where(least > 0, above, (least / 2).tanh())
        return least

    def translated(self, answers: list[Answer]) -> list[Answer]:
        """Answers about the logits as answers about the outputs: the margin is that of the outputs."""
        least = torch.tensor([a.margin for a in answers], dtype=torch.float64).to(self.low.device)
        found = self.margin(least).tolist()
        return [replace(a, margin=m) for a, m in zip(answers, found, strict=True)]

    def _softmax(self) -> float:
        """exp(-d) (1 + r + 4 u d) < 1 - r, with r as `evaluation` charges it and underflow on top.

        The label's probability is the largest, at least 1 / K. exp(-d) <= 1 - d / 2 up to d = 1.
        """
        rate = self.engine.sums(self.classes + 16)
        lost = 8 * self.classes * torch.finfo(self.engine.dtype).tiny
        needed = 8 * rate + 4 * lost
        return needed if needed <= _WHOLE else math.inf

    def _log_softmax(self) -> Tensor:
        """Errors of log sum exp and of both differences, z_y and z_y - d less at most |z_y| + log K.

        The exponents max z - z_i round by units of themselves; weighed by their shares of the sum, they
        are at most log K.
        """
        engine, size = self.engine, torch.maximum(self.low.abs(), self.high.abs())
        spread = math.log(self.classes)
        common = engine.sums(self.classes) * (2 + 3 * spread + size) + 16 * engine.unit
        return 4 * (common + engine.sums(3) * (2 * size + spread))

    def _sigmoid(self, z: Tensor) -> Tensor:
        """z - logit(t) for t = (s (1 - r) - 2 a) / (1 + r), s = sigmoid(z): what errors r s + a leave of it.

        As a function of z it falls, then rises, so its largest value lies at an end of the range.
        """
        relative, absolute = self.engine.function(self.ending.op)  # type: ignore[arg-type]
        value, rest = z.sigmoid(), (-z).sigmoid()
        below = (value * (1 - relative) - 2 * absolute) / (1 + relative)
        above = (rest + relative * (1 + value) + 2 * absolute) / (1 + relative)
        needed = z - below.log() + above.log()
        return torch.where(below > 0, needed * (1 + 1e-9) + 1e-12, math.inf)
