"""Smoothing with a deviation that depends on the input (Sukenik, Kuvshinov and Guennemann 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, Certificates, Progress, validate
from certus.core.kinds import KIND, text
from certus.core.progress import silent
from certus.core.replay import refuse_training
from certus.smoothing.checks import keys_of
from certus.smoothing.noise.elastic_gaussian import ElasticGaussian
from certus.smoothing.rules import Rule
from certus.smoothing.semi_elastic import SemiElastic
from certus.smoothing.smoothed import Smoothed

_SINGLE = 1e-7  # a logarithm changes by less where its number is rounded to float32 (2^-24)
_LEAST, _MOST = 1e-30, 1e30  # deviations for which that is so


@dataclass(frozen=True, eq=False)
class InputDependent:
    """g(x) = the class that `module` gives most often to x + sigma(x) eps, eps standard normal.

    module, num_classes, seed and batch as for `Smoothed`. sigma is a `SemiElastic` rule such as
    `NearestPoints`; whoever attacks moves the input to x', where the rule is evaluated anew. Every input
    is certified by `Smoothed` under its own `ElasticGaussian`, whose radius accounts for that: it is
    smaller than sigma(x) Phi^-1(pA) and shrinks as the inputs' size and r grow. Guarantees are those
    of `Smoothed`, about this g, and assume in addition that sigma is r-semi-elastic with its r.
    """

    module: Callable[[Tensor], Tensor]
    sigma: SemiElastic
    num_classes: int
    seed: int = field(default=0, kw_only=True)
    batch: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a sigma without a proven r, and what `Smoothed` refuses."""
        if not isinstance(self.sigma, SemiElastic):
            raise ArgumentError(
                "sigma must be a SemiElastic rule such as NearestPoints(points, sigma=0.5, r=0.01), "
                f"got {type(self.sigma).__name__}: without a proven bound r of how fast log sigma "
                "changes, points of the ball may have any noise and no radius holds (Sukenik et al. 2022)"
            )
        self._smoothed(ElasticGaussian(1.0, 0.0, 1))

    def noises(self, x: Tensor) -> list[ElasticGaussian]:
        """The noise of each input of x [B, *shape], with the elasticity that its radius accounts for."""
        x = validate.inputs(x)
        sigma, rounding = self.sigma.at(x)
        if not ((sigma > _LEAST) & (sigma < _MOST)).all():
            raise ArgumentError(
                f"the rule of sigma gives {sigma.min():g} to {sigma.max():g} here, no deviation that "
                "can be drawn: choose it near 1 at these inputs, or a smaller r"
            )
        if self.sigma.r > 0:
            # Draws of float32 have a deviation of float32: so it is, and at x' as well.
            sigma, rounding = sigma.astype(np.float32).astype(np.float64), rounding + 2 * _SINGLE
        return [
            ElasticGaussian(float(s), float(self.sigma.r), x[0].numel(), float(lost))
            for s, lost in zip(sigma, rounding, strict=True)
        ]

    def predict(
        self, x: Tensor, n: int = 1000, alpha: float = 1e-3, ids: Sequence[int] | None = None
    ) -> Tensor:
        """Class of each input under its own noise [B] int64, -1 where the samples do not settle it.

        Arguments, the chance of an error and what is raised are those of `Smoothed.predict`.
        """
        return torch.cat(
            [one.predict(row, n, alpha, [key]) for one, row, key in self._each(x, ids)]
        )

    def certify(
        self,
        x: Tensor,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
        rule: Rule | None = None,
    ) -> Certificates:
        """Predict and certify each input of x [B, *shape]; arguments as for `Smoothed.certify`.

        VERIFIED: g gives `prediction` at every x' within `radius` (L2, input units), with the noise that
        the rule of sigma gives x', wrong with chance at most alpha for each input. Otherwise UNKNOWN
        (ABSTAINED), prediction -1, radius 0. evidence[b] is that of `Smoothed`, its noise holds
        sigma(x), r, the size and what rounding may have cost. Raises ArgumentError and ModelError.
        """
        each = list(self._each(x, ids))
        found = [
            one.certify(row, n0, n, alpha, [key], _part(progress, b, len(each)), rule)
            for b, (one, row, key) in enumerate(each)
        ]
        return Certificates.of(
            [answer for f in found for answer in f.answers()],
            method="input-dependent",
            threat=ElasticGaussian.norm,
            seconds=torch.cat([f.seconds for f in found]),
            confidence=found[0].confidence,
            subject=text({KIND: "InputDependent", "sigma": repr(self.sigma)}),
        )

    def _each(self, x: Tensor, ids: Sequence[int] | None) -> list[tuple[Smoothed, Tensor, int]]:
        """Every input as a batch of one, its key, and the smoothed classifier of its noise."""
        refuse_training(self.module)
        noises = self.noises(x)
        keys = keys_of(ids, len(x))
        return [
            (self._smoothed(noise), row[None], key)
            for noise, row, key in zip(noises, x, keys, strict=True)
        ]

    def _smoothed(self, noise: ElasticGaussian) -> Smoothed:
        return Smoothed(self.module, noise, self.num_classes, seed=self.seed, batch=self.batch)


def _part(progress: Progress, done: int, inputs: int) -> Progress:
    """Report one input as a part of all."""
    return lambda rows, total, note="": progress(done * total + rows, inputs * total, note)
