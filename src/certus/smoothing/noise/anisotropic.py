"""Gaussian noise with a deviation of its own for every input value, for ellipsoids (ANCER)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.fingerprint import fingerprint
from certus.smoothing.noise.base import Noise, Probability
from certus.smoothing.noise.rounding import below, normal_gap

_SLACK = 1e-12  # relative, for sums of many logarithms


@dataclass(frozen=True, eq=False, repr=False)
class AnisotropicGaussian(Noise):
    """Independent normal noise; value i has standard deviation sigma_i > 0 (input units).

    sigma has the shape of an input, or one that broadcasts to it. x / sigma sees the noise of Cohen
    et al. 2019, so the answer holds in the ellipsoid |d / sigma|_2 < (Phi^-1(pA) - Phi^-1(pB)) / 2
    (Eiras et al. 2022, ANCER, section 4; Fischer, Baader and Vechev 2020), which is tight, and in the
    L2 ball of min(sigma) times that. sigma must be chosen before the inputs are seen: one that depends
    on the input makes another classifier at every point, about which this proves nothing.
    The proof is about real-valued noise; floating-point draws stand for it.
    """

    sigma: Tensor
    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        """Refuse deviations that are not finite numbers above zero; keep a copy in float64."""
        if not isinstance(self.sigma, Tensor) or self.sigma.numel() == 0:
            raise ArgumentError("sigma must be a tensor with one entry for each input value")
        kept = self.sigma.detach().to(device="cpu", dtype=torch.float64, copy=True)
        if not bool((torch.isfinite(kept) & (kept > 0)).all()):
            raise ArgumentError("every entry of sigma must be a finite number > 0")
        object.__setattr__(self, "sigma", kept)

    def __repr__(self) -> str:
        """Its shape, range and hash, which tells it from others: it has no short form."""
        shape, least, most = tuple(self.sigma.shape), self.sigma.min(), self.sigma.max()
        name = fingerprint([("sigma", self.sigma)])
        return f"AnisotropicGaussian(shape={shape}, least={least:.6g}, most={most:.6g}, {name})"

    def check(self, x: Tensor) -> None:
        """Refuse inputs [B, *shape] that sigma does not broadcast to."""
        shape = tuple(x.shape[1:])
        own = (1,) * (len(shape) - self.sigma.ndim) + tuple(self.sigma.shape)
        fits = len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True))
        if not fits:
            raise ArgumentError(
                f"sigma {tuple(self.sigma.shape)} does not fit inputs of shape {shape}"
            )

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Normal draws, scaled."""
        out.normal_(generator=generator)
        out.mul_(self.sigma.to(out.dtype))

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """The smallest deviation times that of the ellipsoid, rounded down."""
        return below(float(self.sigma.min()) * normal_gap(lower, upper))

    def mahalanobis(self, lower: Probability, upper: Probability | None = None) -> np.ndarray:
        """Radius in the norm |d / sigma|_2 (no unit), float64; arguments and errors as for `radius`."""
        return below(self.radius(lower, upper) / float(self.sigma.min()))

    def distance(self, change: Tensor) -> Tensor:
        """|d / sigma|_2 [B] of changes d [B, *shape], in float64: certified below `mahalanobis`."""
        return (change.to(self.sigma) / self.sigma).flatten(1).norm(dim=1)

    def proxy(
        self, lower: Probability, upper: Probability | None = None, *, size: int
    ) -> np.ndarray:
        """Radius of the ball of the same volume as the certified ellipsoid of inputs of `size` values.

        mahalanobis times the geometric mean of sigma (Eiras et al. 2022, section 5), for comparing
        volumes: it is *not* an L2 radius that is certified. Where sigma broadcasts, each of its
        entries stands for equally many values. Raises ArgumentError where size is no multiple of theirs.
        """
        if size < 1 or size % self.sigma.numel():
            raise ArgumentError(f"sigma has {self.sigma.numel()} entries, inputs {size} values")
        mean = math.exp(float(self.sigma.log().mean()))
        return self.mahalanobis(lower, upper) * mean * (1 - _SLACK)

    def log_volume(
        self, lower: Probability, upper: Probability | None = None, *, size: int
    ) -> np.ndarray:
        """Natural logarithm of the volume of the certified ellipsoid; arguments as for `proxy`."""
        ball = size / 2 * math.log(math.pi) - math.lgamma(size / 2 + 1)
        with np.errstate(divide="ignore"):
            return ball + size * np.log(self.proxy(lower, upper, size=size))
