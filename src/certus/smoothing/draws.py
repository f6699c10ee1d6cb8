"""Streams of noise: which draws an input gets, whatever the batch, the order or the number of workers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.core.random import digest, reseed
from certus.smoothing.noise import Noise

BLOCK = 64
"""Samples, at least, that are drawn from one key: a range is made of whole blocks and parts of two."""

_SMALL = 64  # draws of no more numbers come in larger blocks: a key costs as much as 2,000 numbers
_TIMES = 4

# Streams of noise that must stay apart.
SELECT, ESTIMATE, PREDICT, ATTACK, SECOND_LAW = 1, 2, 3, 4, 6


def block_of(numbers: int) -> int:
    """How many draws of so many numbers a block holds."""
    return BLOCK * (_TIMES if numbers <= _SMALL else 1)


@dataclass(frozen=True)
class Stream:
    """The draws number 0, 1, 2, ... of a noise for one (seed, key, stage).

    Every block starts from a generator state of its own, which is made of `base`, 128 bits that stand for
    (seed, key, stage), and the block's number: no two blocks are the same, of one stream or of two.
    """

    noise: Noise
    base: bytes

    @classmethod
    def of(cls, noise: Noise, seed: int, key: int, stage: int) -> "Stream":
        """The stream of a key."""
        return cls(noise, digest(seed, key, stage))

    def key(self, block: int) -> bytes:
        """What a block is drawn from: different for every (seed, key, stage, block)."""
        return self.base + block.to_bytes(8, "big")

    def fill(self, out: Tensor, start: int, generator: torch.Generator) -> None:
        """Overwrite out [m, *shape of a draw] with the draws number start to start + m - 1."""
        done, size = 0, block_of(out.shape[1:].numel())
        while done < len(out):
            block, skip = divmod(start + done, size)
            take = min(size - skip, len(out) - done)
            reseed(generator, self.key(block))
            if take == size:
                self.noise.fill(out[done : done + size], generator)
            else:  # a part of a block is cut from the whole, as a shorter draw holds other numbers
                whole = torch.empty((size, *out.shape[1:]), dtype=out.dtype)
                self.noise.fill(whole, generator)
                out[done : done + take] = whole[skip : skip + take]
            done += take
