"""Randomness by key: the same (seed, keys) give the same draws, whatever the batch or order."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *keys: int) -> int:
    """A 63-bit seed that depends on `seed` and every key (numpy's SeedSequence hash)."""
    state = np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, *keys: int) -> torch.Generator:
    """A CPU generator for this key; draws are made on the CPU so that they do not depend on the device."""
    return torch.Generator().manual_seed(derive(seed, *keys))


def per_input(seed: int, ids: Sequence[int], *keys: int) -> list[torch.Generator]:
    """One generator for each input id, so an input's draws do not depend on its batch."""
    return [generator(seed, int(i), *keys) for i in ids]


def draw(
    sampler: Callable[..., Tensor], like: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """`sampler` (torch.rand or torch.randn) in the shape of `like` [B, *shape], row b from generators[b]."""
    rows = [sampler(like.shape[1:], generator=g, dtype=like.dtype) for g in generators]
    return torch.stack(rows).to(like.device)
