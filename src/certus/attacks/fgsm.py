"""FGSM: one step along the direction that the gradient at the clean input favours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from certus.attacks.base import Attack, Classifier, fit
from certus.attacks.objective import away, slope
from certus.threats import Region

# A clipped box lies on one side of an input at the limit of its range (a black pixel), while
# `steepest` measures from the box's middle: twice its length reaches the far side from anywhere.
FULL = 2.0


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """Fast gradient (sign) method, Goodfellow et al. 2015, for every norm that a region knows.

    Ascends minus the margin instead of the cross entropy, whose gradient vanishes where the model
    is confident. Deterministic; one gradient for each input.
    """

    name: ClassVar[str] = "fgsm"

    def run(
        self, model: Classifier, x: Tensor, y: Tensor, region: Region, ids: Sequence[int]
    ) -> Tensor:
        """The clean input moved by one displacement of full size."""
        _, gradient = slope(model, x, y, y, away)
        return fit(region, x, x + FULL * region.steepest(free(region, x, gradient)))


def free(region: Region, x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient without the elements that push a value of x past its limit in the region.

    Spending a budget (L2, L1) on a value that cannot move would waste it.
    """
    stuck = ((x >= region.upper) & (gradient > 0)) | ((x <= region.lower) & (gradient < 0))
    return torch.where(stuck, 0.0, gradient)
