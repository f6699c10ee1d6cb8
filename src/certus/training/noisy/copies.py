"""Noisy copies of a batch: the view that losses for randomized smoothing share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.validate import count
from certus.smoothing.derandomized import Derandomized
from certus.smoothing.noise import Noise
from certus.training.loss import Loss, Moment


@dataclass(frozen=True, kw_only=True)
class Noisy(Loss):
    """A loss on `copies` noisy copies of every input, evaluated in one batch.

    noise is that of the smoothed classifier which is certified later; of a Derandomized set of copies
    each row is one, all equally likely (Levine and Feizi 2020). Copies are not clipped, as in that
    classifier (Cohen et al. 2019). Row i * B + b of a view is copy i of input b.
    """

    noise: Noise | Derandomized
    copies: int = 1

    def __post_init__(self) -> None:
        """Raises ArgumentError for settings that are no noise or no count."""
        if not isinstance(self.noise, Noise | Derandomized):
            raise ArgumentError(f"noise must be a Noise such as Gaussian(0.25), got {self.noise!r}")
        count(self.copies, "copies")

    def view(self, x: Tensor, moment: Moment) -> Tensor:
        """[copies * B, *rows_shape]: batch statistics are those of noisy inputs, too."""
        return noisy(x, self.noise, self.copies, moment.generator)

    def split(self, values: Tensor) -> Tensor:
        """[copies * B, ...] as [copies, B, ...]."""
        return values.unflatten(0, (self.copies, -1))


def noisy(
    x: Tensor, noise: Noise | Derandomized, copies: int, generator: torch.Generator
) -> Tensor:
    """`copies` noisy copies of the batch x [B, *shape], one batch after the other.

    Draws are made on the CPU, for every copy and input its own. Raises ArgumentError where the
    noise is not meant for such inputs.
    """
    noise.check(x)
    shape = tuple(x.shape[1:])
    if isinstance(noise, Derandomized):
        drawn = torch.randint(noise.copies(shape), (copies * len(x),), generator=generator)
        rows = [noise.rows(x[i % len(x)], k, k + 1) for i, k in enumerate(drawn.tolist())]
        return torch.cat(rows)
    draws = noise.sample((copies * len(x), *shape), generator, x.dtype)
    if noise.additive:
        return (draws.unflatten(0, (copies, -1)).to(x.device) + x).flatten(0, 1)
    out = torch.empty((len(draws), *noise.rows_shape(shape)), dtype=x.dtype)
    local = x.cpu()
    for row in range(len(draws)):
        one = slice(row, row + 1)
        out[one] = noise.apply(local[row % len(x)], draws[one], out[one])
    return out.to(x.device)


def additive(noise: Noise | Derandomized, who: str) -> None:
    """ArgumentError where an attack could not pass through the noise to the input."""
    if not (isinstance(noise, Noise) and noise.additive):
        raise ArgumentError(f"{who} moves inputs under additive noise, not under {noise!r}")


def weight(value: float, name: str) -> None:
    """ArgumentError for a weight that is not a finite number >= 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ArgumentError(f"{name} must be a finite number >= 0, got {value!r}")


def ramp(moment: Moment, warmup: float) -> float:
    """What rises from 0 to 1 during the first `warmup` of the training."""
    return 1.0 if warmup <= 0 else min(1.0, moment.time / warmup)


def clean(moment: Moment) -> Tensor:
    """The batch without noise. Raises ArgumentError where the moment does not hold it."""
    if moment.clean is None:
        raise ArgumentError("this loss needs the batch itself: give the moment `clean`")
    return moment.clean


def mean_log(log: Tensor) -> Tensor:
    """Log of the mean probability over copies: [m, B, K] log-probabilities -> [B, K]."""
    return log.logsumexp(0) - math.log(len(log))
