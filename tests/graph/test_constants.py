"""Constants along the batch: the same but for rounding, whatever the batch, or refused."""

import pytest
import torch
from tests.laws.networks import Function
from torch import nn

from certus.core import UnsupportedError
from certus.graph import trace
from certus.graph.constants import _alike

X = torch.rand(2, 4)


def rows(x, *shape):
    return torch.ones(x.shape[0], *shape, dtype=x.dtype)


# a product with a matrix is summed in another order for another number of rows
SAME = {
    "product": lambda m, x: x * m.wide(rows(x, 300)),
    "two products": lambda m, x: x + m.narrow(m.wide(rows(x, 300)).tanh()),
    "state": lambda m, x: m.cell(x, m.wide(rows(x, 300))),
    "mask": lambda m, x: (x + rows(x, 4).masked_fill(m.mask, float("-inf"))).softmax(1),
    "average": lambda m, x: x * rows(x, 300).softmax(1).sum(1, keepdim=True),
    "token": lambda m, x: torch.cat([m.token.expand(x.shape[0], -1), x], 1),
}
OTHER = {
    "counted": lambda m, x: x + torch.arange(x.shape[0]).unsqueeze(1),
    "tiny counts": lambda m, x: x + 1e-9 * torch.arange(x.shape[0]).unsqueeze(1),
    "tiny counts beside one": lambda m, x: x * (1 + 1e-5 * torch.arange(x.shape[0]).unsqueeze(1)),
    "share": lambda m, x: x * rows(x, 4).softmax(0),
    "sum": lambda m, x: x * m.wide(rows(x, 300)).sum(0),
    "last": lambda m, x: x * (torch.arange(x.shape[0]) == 2).unsqueeze(1),
    "infinite": lambda m, x: (
        x
        + rows(x, 4).masked_fill(
            (torch.arange(x.shape[0]) > 1).unsqueeze(1) & m.mask, float("-inf")
        )
    ).softmax(1),
}


def module(body):
    torch.manual_seed(0)
    parts = {"wide": nn.Linear(300, 4), "narrow": nn.Linear(4, 4), "cell": nn.GRUCell(4, 4)}
    parts |= {"token": nn.Parameter(torch.rand(1, 3))}
    return Function(body, **parts, mask=torch.tensor([False, True, False, False])).eval()


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_the_same_for_every_input_is_taken(name, dtype):
    model = module(SAME[name]).to(dtype)
    graph, x = trace(model, X.to(dtype)), torch.rand(40, 4, dtype=dtype)
    assert torch.allclose(graph(x), model(x), atol=1e-5)


@pytest.mark.parametrize("name", OTHER)
def test_what_differs_along_the_batch_is_refused(name):
    with pytest.raises(UnsupportedError, match="along the batch"):
        trace(module(OTHER[name]), X)


def test_roundings_are_told_from_differences():
    one, infinite = torch.tensor([1.0, 0.5]), torch.tensor([1.0, float("-inf")])
    unit = torch.finfo(torch.float32).eps
    assert _alike(one, one + 3 * unit, 4) and not _alike(one, one + 8 * unit, 4)
    assert _alike(1e9 * one, 1e9 * (one + 3 * unit), 4) and not _alike(1e-9 * one, one, 4)
    assert _alike(infinite, infinite, 4) and not _alike(infinite, one, 4)
    assert not _alike(one, infinite, 4) and not _alike(one, torch.full((2,), float("nan")), 4)
    assert not _alike(torch.tensor([1, 2]), torch.tensor([1, 3]), 4)
    assert not _alike(torch.zeros(2), unit * one, 4)
