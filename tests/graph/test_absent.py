"""Masks of minus infinity: what they leave out has no influence, however small the rest is."""

import pytest
import torch
import torch.nn.functional as F
from tests.graph.test_conversions import Function
from torch import nn

import certus
from certus.bounding import rounding_guard
from certus.bounding.interval import IBP
from certus.graph.softmax import MaskedSoftmax, Softmax
from certus.relax import intervals, relaxations

INF = float("inf")
PAD = torch.tensor([False, False, True])
LATER = torch.ones(3, 3).triu(1).bool()
SUMMAND = torch.zeros(3, 3).masked_fill(LATER, -INF)
METHODS = ("ibp", "crown", "alpha-crown", "zonotope", "lp")
BODIES = {
    "fill": lambda x: x.masked_fill(PAD, -INF).softmax(-1),
    "where": lambda x: torch.where(PAD, -INF, x).softmax(-1),
    "rows": lambda x: x.masked_fill(LATER, -INF).softmax(-1) @ x.mT,
    "summand": lambda x: (x + SUMMAND).softmax(-1),
    "moved": lambda x: (
        (x.masked_fill(LATER, -INF) / 2).flatten(1).unflatten(1, (1, 3, 3)).softmax(-1)
    ),
    "twice": lambda x: x.masked_fill(LATER, -INF).masked_fill(PAD, 0.5).softmax(-1),
    "finite": lambda x: x.masked_fill(LATER, -1e10).softmax(-1),
    "least": lambda x: x.masked_fill(LATER, torch.finfo(x.dtype).min).softmax(-1),
    "largest": lambda x: (
        x.masked_fill(LATER, -INF).amax(-1) + x.masked_fill(LATER.T, -INF).amax((1, 2))[:, None]
    ),
    "sums": lambda x: x.masked_fill(PAD, -INF).logsumexp(-1),
    "functions": lambda x: (
        (x / 1e10).masked_fill(LATER, -INF).exp() + x.masked_fill(LATER, -INF).sigmoid()
    ),
    "attention": lambda x: F.scaled_dot_product_attention(
        *[x.unsqueeze(1) / 1e5] * 3, is_causal=True
    ),
}


@pytest.mark.parametrize("shift", [0.0, -3e10], ids=["near", "far"])
@pytest.mark.parametrize("name", BODIES)
def test_bounds_contain_samples_also_far_below_zero(name, shift):
    scale = 1e10 if shift else 1.0
    module = Function(lambda x: BODIES[name](scale * x + shift)).eval()
    x = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    graph = certus.trace(module, x)
    for method in METHODS:
        for radius in (0.01, 0.5):
            found = certus.bounds(graph, x, certus.Linf(radius, clip=None), method=method)
            steps = (
                torch.randint(-2, 3, (200, 2, 3, 3), generator=torch.Generator().manual_seed(2)) / 2
            )
            values = torch.stack([module(x + 0.999 * radius * s) for s in steps])
            slack = 1e-5 * values.abs().max().clamp(min=1.0)
            assert bool(
                (values >= found.lower - slack).all() and (values <= found.upper + slack).all()
            )


def test_a_mask_is_no_number_that_scores_fall_below():
    """Scores of two tokens swap far below zero; a padding token never gets any weight."""
    score = nn.Linear(2, 3)
    score.weight.data = torch.tensor([[1e8, -1e8], [-1e8, 1e8], [0.0, 0.0]])
    score.bias.data = torch.tensor([-3e9, -4e9, 0.0])
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    module = nn.Sequential(
        score, Function(lambda s: s.masked_fill(PAD, -INF).softmax(-1) @ values)
    ).eval()
    x, threat = torch.zeros(1, 2), certus.Linf(4.0, clip=None)
    for method in ("ibp", "crown", "auto"):
        found = certus.certify(module, x, torch.tensor([0]), threat, method=method)
        assert found.verdict[0].value != "verified"


REFUSED = {
    "all": (
        lambda x: x.masked_fill(torch.ones(3, 3).bool(), -INF).softmax(-1),
        "leaves out every position",
    ),
    "a-row": (
        lambda x: x.masked_fill(torch.eye(3)[1].bool()[:, None], -INF).softmax(-1),
        "leaves out every position",
    ),
    "negative": (
        lambda x: (-x.masked_fill(LATER, -INF)).softmax(-1),
        "minus infinity .* reaches Scale",
    ),
    "difference": (
        lambda x: (x - x.masked_fill(LATER, -INF)).softmax(-1),
        "minus infinity .* reaches Sum",
    ),
    "uneven-sums": (lambda x: x.masked_fill(LATER, -INF).logsumexp(-1), "reaches LogSumExp"),
    "product": (lambda x: x.masked_fill(LATER, -INF) @ x, "minus infinity .* reaches Product"),
    "plus": (lambda x: x.masked_fill(LATER, INF).softmax(-1), "plus infinity"),
    "output": (lambda x: x.masked_fill(LATER, -INF), "entries of minus infinity"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_value_is_refused_by_name(name):
    body, words = REFUSED[name]
    with pytest.raises(certus.UnsupportedError, match=words):
        certus.trace(Function(body).eval(), torch.rand(1, 3, 3))


def test_rules_are_those_of_the_shorter_softmax():
    """Also where what is left out is far above the rest, or nothing is known of it but that it is finite."""
    low = torch.tensor([[-1.0, 50.0, 0.5, -1e10]])
    high = torch.tensor([[0.0, 60.0, 2.0, 1e10]])
    keep = torch.tensor([[True, False, True, False]])
    op, short = MaskedSoftmax(1, keep), Softmax(1)
    kept = [v[:, [0, 2]] for v in (low, high)]
    found, expected = (
        intervals[MaskedSoftmax](op, (low, high)),
        intervals[Softmax](short, tuple(kept)),
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours[:, [0, 2]], theirs) and bool((ours[:, [1, 3]] == 0).all())
    rows = torch.eye(4).unsqueeze(1)
    for sign in (1, -1):
        (pulled,), offset = relaxations[MaskedSoftmax](op, (low, high)).pull(sign * rows)
        (two,), constant = relaxations[Softmax](short, tuple(kept)).pull(
            sign * torch.eye(2).unsqueeze(1)
        )
        assert torch.allclose(pulled[[0, 2]][:, :, [0, 2]], two) and torch.allclose(
            offset[[0, 2]], constant
        )
        assert bool((pulled[:, :, [1, 3]] == 0).all() and (pulled[[1, 3]] == 0).all())
    unknown = low.clone()
    unknown[0, 1] = float("nan")  # left out by addition, not by selection, it would be NaN
    assert intervals[MaskedSoftmax](op, (unknown, high))[0].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_goes_to_what_is_left_out_in_any_type(dtype):
    low, keep = torch.tensor([[-1.0, 50.0, 0.5]], dtype=dtype), torch.tensor([[True, False, True]])
    found = intervals[MaskedSoftmax](MaskedSoftmax(1, keep), (low, low + 1))
    assert all(bool((end[:, 1] == 0).all() and (end >= 0).all()) for end in found)
    assert all(end.dtype == dtype for end in found)


def test_the_guard_does_not_count_what_is_left_out():
    large = torch.tensor([1.0, 1.0, 1e6])
    module = Function(lambda x: (x * large).masked_fill(PAD, -INF).softmax(-1)).eval()
    graph = certus.trace(module, torch.rand(1, 3))
    x = torch.rand(2, 3)
    state = IBP().prepare(graph, certus.Box(x - 0.05, x + 0.05))
    assert float(rounding_guard(graph, state.intervals, torch.float32).max()) < 1e-4
