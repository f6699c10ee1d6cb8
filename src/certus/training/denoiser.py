"""Denoised smoothing: a denoiser in front of a classifier, as one module to smooth and certify."""

import math

import torch
from torch import Tensor, nn

from certus.core.validate import positive


class Denoised(nn.Module):
    """f(D(x)): what is certified by `Smoothed` is the classifier f under a denoiser D.

    Salman et al. 2020: D takes the noise off that smoothing puts on, and f need not have been
    trained for it. The certificate is that of any module; it is about f(D(.)), not about f.
    """

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> logits [B, K]."""
        logits: Tensor = self.classifier(self.denoiser(x))
        return logits


class OneStep(nn.Module):
    """One step of a diffusion as a denoiser of images with noise of deviation sigma.

    body was trained with `Diffusion`: [B, C + 1, H, W] -> [B, C + 1, H, W]. The estimate of the image
    is x - sigma * e(x / sqrt(1 + sigma^2), sigma) (Carlini et al. 2023, algorithm 1), inside clip.
    """

    def __init__(
        self, body: nn.Module, sigma: float, clip: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        self.body, self.sigma, self.clip = body, positive(sigma, "sigma"), clip

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        level = torch.zeros_like(x[:, :1]) + math.log(self.sigma)
        state = torch.cat([x / math.sqrt(1 + self.sigma**2), level], 1)
        noise = self.body(state)[:, :-1]
        return (x - self.sigma * noise).clamp(*self.clip)
