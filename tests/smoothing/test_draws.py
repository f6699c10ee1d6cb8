"""Streams: blocks that no two inputs share, the same however they are cut, and independent of each other."""

from itertools import product

import numpy as np
import pytest
import torch

from certus.core.random import derive, digest
from certus.smoothing import Gaussian
from certus.smoothing.draws import BLOCK, Stream

NOISE = Gaussian(1.0)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 700), (1, 2), (63, 65), (64, 128), (70, 250), (255, 600)]
)
@pytest.mark.parametrize("size", [1, 4, 64, 65])
def test_a_stream_is_the_same_however_it_is_cut(size, start, stop):
    stream, generator = Stream.of(NOISE, 1, 2, 3), torch.Generator()
    whole, part = torch.empty(700, size), torch.empty(stop - start, size)
    stream.fill(whole, 0, generator)
    stream.fill(part, start, generator)
    assert torch.equal(part, whole[start:stop])
    assert len(whole[:, 0].unique()) > 690


def test_no_two_blocks_have_a_key_in_common():
    """With 32 bits for a stream several pairs of these 250,000 would share all their blocks."""
    streams = (Stream.of(NOISE, 0, key, stage) for key in range(125_000) for stage in (1, 2))
    keys = {key for stream in streams for key in map(stream.key, range(4))}
    assert len(keys) == 1_000_000


def test_large_ids_and_seeds_do_not_run_into_each_other():
    """Cut into words of 32 bits, the id 2^32 of seed 0 reads as id 0 with a key 1 behind it."""
    assert derive(0, 2**32) == derive(0, 0, 1)
    lists = [
        (0, 2**32),
        (0, 0, 1),
        (0, 0),
        (0,),
        (0, 0, 0),
        (2**32, 0),
        (0, 1, 0),
        (11, 1),
        (1, 11),
    ]
    lists += [(111,), (1, 1, 1), (11, 1, 0), (2**64, 1), (1, 2**64), (2**200, 1)]
    assert len({digest(*numbers) for numbers in lists}) == len(lists)


def test_every_part_of_the_key_changes_the_draws():
    def first(seed: int, key: int, stage: int, block: int) -> torch.Tensor:
        out = torch.empty(1, 100)
        Stream.of(NOISE, seed, key, stage).fill(out, block * BLOCK, torch.Generator())
        return out

    wide = (0, 1, 2**31, 2**32, 2**32 + 1)
    draws = [first(*of) for of in product((0, 2**32), wide, (1, 2), (0, 1))]
    assert len(torch.cat(draws).unique(dim=0)) == len(draws)


def test_draws_of_neighbours_are_uncorrelated():
    """Seeds, ids, stages and blocks side by side: every pair is as independent as chance allows."""
    rows = []
    for seed, key, stage in product(range(2), range(10), (1, 2)):
        out = torch.empty(2 * BLOCK, 100)
        Stream.of(NOISE, seed, key, stage).fill(out, 0, torch.Generator())
        rows += out.view(2, -1).double().numpy().tolist()
    values = np.array(rows)
    size, pairs = values.shape[1], np.triu_indices(len(values), 1)
    found = np.corrcoef(values)[pairs] * size**0.5
    assert len(found) == 3160
    assert (
        abs(found).max() < 5.2
    )  # of 3160 standard normal numbers one exceeds it once in 1600 trials
    assert abs(found.std() - 1) < 0.05
    assert abs(values.mean(1) * size**0.5).max() < 4.7
    assert abs(values.var() - 1) < 0.01
