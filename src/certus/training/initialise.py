"""Initial weights that keep interval bounds from growing with depth."""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from certus.core import ModelError
from certus.core.random import generator

_LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@torch.no_grad()
def interval_weights(module: nn.Module, seed: int = 0) -> None:
    """Draw weights N(0, sigma^2) with sigma = sqrt(2 pi) / fan_in, and set biases to zero, in place.

    Then a layer of ReLUs keeps the expected width of intervals, whatever its fan-in (Shi et al. 2021,
    section 3.1). Linear layers and convolutions only; those with a parametrized weight (orthogonal,
    normalised) keep theirs. The draws depend on (seed, number of the layer). Raises ModelError where
    the module has no such layer.
    """
    layers = [
        part
        for part in module.modules()
        if isinstance(part, _LAYERS) and not parametrize.is_parametrized(part, "weight")
    ]
    if not layers:
        raise ModelError("the model has no linear layer or convolution with plain weights")
    for number, part in enumerate(layers):
        fan_in = part.weight[0].numel()
        noise = torch.randn(part.weight.shape, generator=generator(seed, number))
        part.weight.copy_(noise * (math.sqrt(2 * math.pi) / fan_in))
        if part.bias is not None:
            part.bias.zero_()
