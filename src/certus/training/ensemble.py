"""Ensemble: several classifiers as one module, for smoothing with less variance."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from certus.core import ArgumentError


class Ensemble(nn.Module):
    """The mean of the logits of several classifiers.

    Independent errors under noise average out, so the smoothed ensemble answers more surely and is
    certified further (Horvath et al. 2022). Members are trained one by one, with seeds of their own,
    or together as this module. Raises ArgumentError for an ensemble of nothing.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ArgumentError("an ensemble needs at least one classifier")
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> logits [B, K]."""
        return torch.stack([member(x) for member in self.members]).mean(0)
