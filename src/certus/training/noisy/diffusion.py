"""Diffusion: one network that predicts the noise at every level, for a denoiser in one step."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from certus.core import ArgumentError, ModelError
from certus.core.validate import positive
from certus.graph import Graph
from certus.training.loss import Loss, Moment, Value
from certus.training.noisy.copies import clean


@dataclass(frozen=True, kw_only=True)
class Diffusion(Loss):
    """Mean |e(x_t, sigma) - noise|^2 where x_t = (x + sigma * noise) / sqrt(1 + sigma^2).

    Ho et al. 2020, eq. 14, in the terms of Carlini et al. 2023, section 3: x_t is a diffusion's
    state with alpha_bar = 1 / (1 + sigma^2). sigma is drawn for each input, log-uniform on [low,
    high]. The network takes images [C + 1, H, W] whose last channel is log sigma (`levelled`) and
    returns the noise in its first C channels. Certify `Denoised(OneStep(e, sigma), f)` afterwards.
    """

    classifies: ClassVar[bool] = False
    ascends: ClassVar[bool] = False
    low: float = 0.1
    high: float = 1.5

    def __post_init__(self) -> None:
        positive(self.low, "low")
        positive(self.high, "high")
        if not self.low < self.high:
            raise ArgumentError(f"low must be below high, got {self.low} and {self.high}")

    def view(self, x: Tensor, moment: Moment) -> Tensor:
        """[B, C + 1, H, W]: states at levels of their own."""
        if x.ndim != 4:
            raise ArgumentError(f"diffusion takes images [B, C, H, W], got {tuple(x.shape)}")
        share = torch.rand(len(x), 1, 1, 1, generator=moment.generator, dtype=x.dtype)
        noise = torch.randn(x.shape, generator=moment.generator, dtype=x.dtype)
        sigma = (math.log(self.low) + share * math.log(self.high / self.low)).exp().to(x.device)
        return levelled(x + sigma * noise.to(x.device), sigma)

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the values; logits are the predicted noise. The noise is what x says it is."""
        image = clean(moment)
        channels = image.shape[1]
        if logits.shape != x.shape:
            raise ModelError(f"the network must keep the shape {tuple(x.shape[1:])} of its input")
        sigma = x[:, -1:, :1, :1].exp()
        noise = (x[:, :channels] * (1 + sigma**2).sqrt() - image) / sigma
        return Value(mse_loss(logits[:, :channels], noise))


def levelled(noisy: Tensor, sigma: Tensor | float) -> Tensor:
    """The state of a noisy image [B, C, H, W] with its level as one more channel.

    sigma is a number or [B, 1, 1, 1]; the state is noisy / sqrt(1 + sigma^2).
    """
    level = torch.as_tensor(sigma, dtype=noisy.dtype, device=noisy.device).view(-1, 1, 1, 1)
    state = noisy / (1 + level**2).sqrt()
    return torch.cat([state, level.log().expand(len(noisy), 1, *noisy.shape[2:])], 1)
