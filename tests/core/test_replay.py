"""Models that cannot be believed: random, with a memory, or mixing the rows of a batch."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from certus.attacks import FGSM, PGD
from certus.certifiers import AttackCertifier
from certus.core import ModelError
from certus.core.replay import margin, margins, repeatable, same
from certus.smoothing import Gaussian, Smoothed
from certus.threats import L2, Linf


def linear(x):
    """Class 0 wins where the first value is the larger one."""
    return torch.stack([x[:, 0], x[:, 1]], 1) * 3


class Counter(nn.Module):
    """The second class gains with every call after a few."""

    def __init__(self, patience):
        super().__init__()
        self.patience, self.calls = patience, 0

    def forward(self, x):
        self.calls += 1
        late = 0.5 * max(0, self.calls - self.patience)
        return linear(x) + torch.tensor([0.0, late])


class Cache(nn.Module):
    """Answers with what it was asked before."""

    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        now = linear(x)
        found = now if self.last is None or len(self.last) != len(now) else self.last
        self.last = now
        return found + 0.5 * now


def rarely(x):
    """Random only away from the clean inputs."""
    near = (x[:, :1] > 0.58).float()
    return linear(x) + (1 - near) * torch.randn(len(x), 2)


RANDOM = {
    "dropout": lambda x: functional.dropout(linear(x), 0.5, training=True),
    "noise": lambda x: linear(x) + torch.randn(len(x), 2),
    "far away": rarely,
    "counter": Counter(0),
    "late counter": Counter(9),
    "cache": Cache(),
}
MIXING = {
    "batch norm": lambda x: (linear(x) - linear(x).mean(0)) / (1 + linear(x).std(0, correction=0)),
    "softmax": lambda x: linear(x).softmax(0),
    "neighbour": lambda x: linear(x) - linear(x).roll(1, 0),
    "place": lambda x: linear(x) + torch.arange(len(x)).unsqueeze(1) * torch.tensor([0.0, 1.0]),
    "size": lambda x: linear(x) + (len(x) == 1) * torch.tensor([0.0, 1.0]),
}


def case(batch=4):
    x = torch.tensor([[0.6, 0.5]]) + 0.01 * torch.arange(batch).unsqueeze(1)
    return x, torch.zeros(batch, dtype=torch.int64)


def runner(attack):
    return AttackCertifier(attack=attack)


ENTRIES = {
    "fgsm": FGSM(),
    "pgd": PGD(steps=3, restarts=2),
    "runner": runner(PGD(steps=3)),
    "smoothed": lambda model, x, y, threat: Smoothed(model, Gaussian(0.1), 2).certify(x, n=200),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", [*RANDOM, *MIXING])
def test_no_entry_believes_them(name, entry, batch):
    model = (RANDOM | MIXING)[name]
    if isinstance(model, Counter | Cache):
        model = type(model)(*([model.patience] if isinstance(model, Counter) else [])).eval()
    if entry == "smoothed" and name in ("far away", "late counter"):
        pytest.skip("seen only at the attacked points, or after many calls")
    x, y = case(batch)
    with pytest.raises(ModelError, match=r"deterministic|rest of the batch") as said:
        ENTRIES[entry](model, x, y, Linf(0.2))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("entry", ["fgsm", "pgd", "runner"])
def test_rounding_between_batch_sizes_is_no_mixing(entry):
    def model(x):
        return linear(x) * (1 + 1e-6 * (len(x) == 1))

    x, y = case()
    found = ENTRIES[entry](model, x, y, L2(0.3))
    assert entry == "runner" or bool(found.success.all())


def test_a_success_is_wrong_alone_and_in_the_batch():
    """Two logits so close that the size of the batch decides which one is larger."""

    def tilted(one, many):
        return lambda x: torch.tensor([[0.0, one if len(x) == 1 else many]]).expand(len(x), 2)

    x, y = case()
    for one, many, wrong in (
        (1e-6, 1e-6, True),
        (-1e-6, 1e-6, False),
        (1e-6, -1e-6, False),
        (0.0, 0.0, True),
    ):
        found = FGSM()(tilted(one, many), x, y, Linf(0.1))
        assert bool(found.success.all()) == bool(found.success.any()) == wrong
        assert bool((margins(tilted(one, many), x, y) <= 0).all()) == wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("alone", [False, True])
def test_logits_that_are_no_numbers_claim_nothing(value, column, alone):
    def model(x):
        z = torch.tensor([[0.0, 1.0, 2.0]]).repeat(len(x), 1)
        if not alone or len(x) == 1:
            z[:, column] = value
        return z

    x, y = case()
    assert bool(margins(model, x, y).isnan().all())


def test_the_margin_of_a_tie_is_zero():
    z = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 1.5], [0.0, 3.0, 1.0]])
    assert margin(z, torch.zeros(3, dtype=torch.int64)).tolist() == [0.0, 0.5, -3.0]


def test_nan_equals_nan_and_shapes_count():
    z = torch.tensor([[1.0, float("nan")]])
    same(z, z.clone())
    for other in (z.nan_to_num(), z[:, :1], z.double(), torch.tensor([[1.0 + 1e-7, float("nan")]])):
        with pytest.raises(ModelError, match="deterministic"):
            same(z, other)


def test_a_model_of_one_batch_size_is_told():
    x, y = case()
    with pytest.raises(ModelError, match="any number of inputs"):
        margins(lambda x: x.view(4, 2), x, 1 - y)


def test_a_model_that_writes_into_its_input_is_given_copies():
    x, y = case()
    before = x.clone()
    assert torch.equal(repeatable(lambda rows: rows.mul_(2), x), before * 2)
    margins(lambda rows: rows.mul_(2), x, y)
    assert torch.equal(x, before)


def test_a_number_in_the_batch_is_not_nan_alone():
    def answer(x):
        return linear(x) if len(x) > 1 else linear(x) * torch.nan

    with pytest.raises(ModelError, match="rest of the batch"):
        repeatable(answer, torch.rand(4, 2))
