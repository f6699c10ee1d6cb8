"""Streams of noise: which draws an input gets, whatever the batch, the order or the number of workers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.core.random import derive
from certus.smoothing.noise import Noise

BLOCK = 64
"""Samples that are drawn from one seed: any range of a stream is made of whole blocks and parts of two."""

# Streams of noise that must stay apart.
SELECT, ESTIMATE, PREDICT, ATTACK, SECOND_LAW = 1, 2, 3, 4, 6

_WORD = 2**32  # torch's generator on the CPU takes no more than the low 32 bits of a seed
_STAGES = 16
_SPREAD = 0x9E3779B1  # odd, so that multiplying by it permutes the words


@dataclass(frozen=True)
class Stream:
    """The draws number 0, 1, 2, ... of a noise for one (seed, key, stage).

    Every block of every stage of one (seed, key) has a seed of its own: they are counted through all
    32-bit words from a hashed start, so that no block is ever repeated within an input (a hash of its
    own for each of 1,500 blocks would repeat one in 4,000 times).
    """

    noise: Noise
    base: int
    stage: int

    @classmethod
    def of(cls, noise: Noise, seed: int, key: int, stage: int) -> "Stream":
        """The stream of a key, which hashes (seed, key) once."""
        return cls(noise, derive(seed, key) % _WORD, stage)

    def seed(self, block: int) -> int:
        """Seed of a block, less than 2^32 and different for every (stage, block)."""
        return (self.base + (self.stage + _STAGES * block) * _SPREAD) % _WORD

    def fill(self, out: Tensor, start: int, generator: torch.Generator) -> None:
        """Overwrite out [m, *shape of a draw] with the draws number start to start + m - 1."""
        done = 0
        while done < len(out):
            block, skip = divmod(start + done, BLOCK)
            take = min(BLOCK - skip, len(out) - done)
            generator.manual_seed(self.seed(block))
            if take == BLOCK:
                self.noise.fill(out[done : done + BLOCK], generator)
            else:  # a part of a block is cut from the whole, as a shorter draw holds other numbers
                whole = torch.empty((BLOCK, *out.shape[1:]), dtype=out.dtype)
                self.noise.fill(whole, generator)
                out[done : done + take] = whole[skip : skip + take]
            done += take
