"""Generators by key: the whole state is set, and it is where torch keeps it."""

import hashlib

import numpy as np
import pytest
import torch

from certus.core import random
from certus.core.errors import DependencyError


def test_the_twister_runs_as_numpys_from_the_same_words():
    generator, other = torch.Generator(), np.random.RandomState()
    for key in (b"", b"a", bytes(24)):
        random.reseed(generator, key)
        words = np.frombuffer(hashlib.shake_128(key).digest(4 * 624), "<u4")
        other.set_state(("MT19937", words, 624))
        expected = other.randint(0, 2**32, size=2000, dtype=np.uint32).astype(np.int64)
        found = torch.empty(2000, dtype=torch.int64).random_(0, 2**20, generator=generator)
        assert np.array_equal(found.numpy(), expected % 2**20)


def test_nothing_of_earlier_draws_is_left():
    """torch makes normal numbers in pairs, and the second of a pair waits in the generator."""
    generator, fresh = torch.Generator().manual_seed(1), torch.Generator()
    torch.empty(3).normal_(generator=generator)
    torch.empty(3, dtype=torch.float64).normal_(generator=generator)
    for one in (generator, fresh):
        random.reseed(one, b"key")
    for dtype in (torch.float32, torch.float64):
        found, expected = (
            torch.empty(5, dtype=dtype).normal_(generator=g) for g in (generator, fresh)
        )
        assert torch.equal(found, expected)


def test_one_bit_of_a_key_changes_half_of_the_bits_of_the_state():
    states = []
    for bit in range(192):
        random.reseed(one := torch.Generator(), (1 << bit).to_bytes(24, "big"))
        states.append(one.get_state().numpy().view(np.uint64)[3:627].astype(np.uint32))
    bits = np.unpackbits(np.stack(states).view(np.uint8), axis=1)
    off = np.array([(bits[k] != bits[k - 1]).mean() for k in range(192)])
    assert abs(off - 0.5).max() < 5 * 0.5 / bits.shape[1] ** 0.5


def test_a_state_of_another_form_is_refused(monkeypatch):
    monkeypatch.setattr(random, "_HEAD", 4)
    random._template.cache_clear()
    try:
        with pytest.raises(DependencyError, match="keeps the state of its generator"):
            random.reseed(torch.Generator(), b"key")
    finally:
        random._template.cache_clear()
