"""Randomness by key: the same (seed, keys) give the same draws, whatever the batch or order."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from certus.core.errors import DependencyError

_HEAD, _WORDS = 3, 624  # words of 64 bits before those of the Mersenne twister in torch's state
_PROBE = 5489  # any seed


def derive(seed: int, *keys: int) -> int:
    """A 63-bit seed that depends on `seed` and every key (numpy's SeedSequence hash)."""
    state = np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, *keys: int) -> torch.Generator:
    """A CPU generator for this key; draws are made on the CPU so that they do not depend on the device."""
    return torch.Generator().manual_seed(derive(seed, *keys))


def digest(seed: int, *keys: int) -> bytes:
    """128 bits that stand for (seed, *keys), a BLAKE2b hash of the numbers as they are written.

    No two lists are written alike, and among 10^12 digests two are the same with a chance of 10^-15.
    """
    return hashlib.blake2b(",".join(map(str, (seed, *keys))).encode(), digest_size=16).digest()


def reseed(generator: torch.Generator, key: bytes) -> None:
    """Set the whole state of a CPU generator, 624 words of 32 bits, from all bits of a key.

    `manual_seed` reads 32 bits only, so that of 100,000 generators some are the same. The words are the
    key's SHAKE-128. Raises DependencyError where this torch keeps the state in another form.
    """
    state = _template().copy()
    words = np.frombuffer(hashlib.shake_128(key).digest(4 * _WORDS), dtype="<u4")
    state[_HEAD : _HEAD + _WORDS] = words
    generator.set_state(torch.from_numpy(state.view(np.uint8)))


@cache
def _template() -> np.ndarray:
    """The state of a fresh generator as words of 64 bits, which are where numpy's twister says."""
    state = torch.Generator().manual_seed(_PROBE).get_state().numpy()
    expected = np.random.RandomState(_PROBE).get_state()[1]  # type: ignore[index]
    if len(state) % 8 or not np.array_equal(state.view(np.uint64)[_HEAD:][:_WORDS], expected):
        raise DependencyError(
            f"torch {torch.__version__} keeps the state of its generator in a form that Certus does not "
            "know, so noise cannot be drawn by key; install the torch that constraints.txt names"
        )
    return state.view(np.uint64)


def per_input(seed: int, ids: Sequence[int], *keys: int) -> list[torch.Generator]:
    """One generator for each input id, so an input's draws do not depend on its batch."""
    return [generator(seed, int(i), *keys) for i in ids]


def draw(
    sampler: Callable[..., Tensor], like: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """`sampler` (torch.rand or torch.randn) in the shape of `like` [B, *shape], row b from generators[b]."""
    rows = [sampler(like.shape[1:], generator=g, dtype=like.dtype) for g in generators]
    return torch.stack(rows).to(like.device)
