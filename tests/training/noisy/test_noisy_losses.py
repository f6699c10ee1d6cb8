"""Losses for smoothing against sums written out by hand, in float64."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from certus.core import ArgumentError, ModelError
from certus.smoothing import Gaussian
from certus.smoothing.noise import Flips
from certus.training import (
    CatRS,
    Consistency,
    Denoising,
    Diffusion,
    Macer,
    Moment,
    NoiseAugmentation,
    SmoothAdv,
    SmoothMix,
    Stability,
)

NOISE = Gaussian(0.5)
B, K = 5, 3
ALL = [
    NoiseAugmentation(noise=NOISE, copies=2),
    Stability(noise=NOISE, copies=2),
    Consistency(noise=NOISE),
    SmoothAdv(noise=NOISE, copies=2, steps=2),
    SmoothMix(noise=NOISE, copies=2, steps=2),
    CatRS(noise=NOISE, copies=2, steps=2),
    Macer(noise=NOISE, copies=4, beta=1.0),
]
LABELS = torch.tensor([0, 1, 2, 0, 1])


def moment(x, **changes):
    generator = torch.Generator().manual_seed(1)
    return Moment(**({"eps": 0.0, "generator": generator, "clean": x} | changes))


@pytest.fixture
def x():
    return torch.rand(B, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, K)
    return nn.Sequential(*layers).double().eval()


def value(loss, net, x, **changes):
    """The loss as the loop calls it, and what it saw."""
    now = moment(x, **changes)
    seen = loss.view(x, now)
    y = LABELS.repeat(len(seen) // B)
    return loss(net, net(seen), seen, y, now), seen


def softmax(row):
    weights = [math.exp(float(v)) for v in row]
    return [w / sum(weights) for w in weights]


def shares(net, seen, copies, beta=1.0):
    """Softmax of copy i of input b as nested lists [copies][B][K]."""
    rows = [softmax(row) for row in beta * net(seen).detach()]
    return [rows[i * B : (i + 1) * B] for i in range(copies)]


def means(share, b):
    return [sum(copy[b][k] for copy in share) / len(share) for k in range(K)]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def plain(share):
    """Cross entropy over all copies."""
    terms = [-math.log(copy[b][LABELS[b]]) for copy in share for b in range(B)]
    return sum(terms) / len(terms)


def close(found, expected):
    assert float(found.detach()) == pytest.approx(expected, rel=1e-9)


def test_copies_are_the_input_and_noise_of_their_own(x):
    seen = NoiseAugmentation(noise=NOISE, copies=3).view(x, moment(x))
    draws = NOISE.sample((3 * B, 4), torch.Generator().manual_seed(1), torch.float64)
    torch.testing.assert_close(seen, x.repeat(3, 1) + draws)


def test_noise_that_is_no_sum_is_applied_to_each_input():
    noise, x = Flips(0.6, 4), torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(B, 1)
    seen = NoiseAugmentation(noise=noise, copies=2).view(x, moment(x))
    assert seen.shape == (2 * B, 4) and set(seen.unique().tolist()) == {0.0, 1.0}
    assert 0 < float((seen != x.repeat(2, 1)).double().mean()) < 1
    with pytest.raises(ArgumentError, match="additive"):
        SmoothAdv(noise=noise)


def test_stability(net, x):
    found, seen = value(Stability(noise=NOISE, copies=2, weight=3.0), net, x)
    share = shares(net, seen, 3)
    clean = sum(-math.log(share[0][b][LABELS[b]]) for b in range(B)) / B
    cross = [
        -sum(p * math.log(q) for p, q in zip(share[0][b], share[i][b], strict=True))
        for i in (1, 2)
        for b in range(B)
    ]
    close(found.total, clean + 3.0 * sum(cross) / len(cross))


def test_consistency(net, x):
    found, seen = value(Consistency(noise=NOISE, copies=3, weight=7.0, eta=0.4), net, x)
    share = shares(net, seen, 3)
    extra = 0.0
    for b in range(B):
        mean = means(share, b)
        extra += 7.0 * sum(kl(mean, copy[b]) for copy in share) / 3
        extra -= 0.4 * sum(p * math.log(p) for p in mean)
    close(found.total, plain(share) + extra / B)


def test_macer(net, x):
    for gamma in (0.5, 8.0):
        loss = Macer(noise=NOISE, copies=4, weight=2.0, beta=3.0, gamma=gamma)
        found, seen = value(loss, net, x)
        soft, sharp = shares(net, seen, 4), shares(net, seen, 4, beta=3.0)
        total, counted = 0.0, 0
        for b in range(B):
            total -= math.log(means(soft, b)[LABELS[b]])
            mean = means(sharp, b)
            best = max(range(K), key=mean.__getitem__)
            if best == LABELS[b]:
                second = max(p for k, p in enumerate(mean) if k != best)
                quantile = NormalDist().inv_cdf
                gap = quantile(mean[best]) - quantile(second)
                total += 2.0 * 0.5 / 2 * max(0.0, gamma - gap)
                counted += 1
        assert counted > 0
        close(found.total, total / B)


def test_macer_of_certain_answers_is_finite(x):
    net = nn.Linear(4, K).double().eval()
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor([900.0, 0.0, 0.0]))
    found, _ = value(Macer(noise=NOISE, copies=2), net, x)
    found.total.backward()
    assert bool(torch.isfinite(net.bias.grad).all())


def test_macer_defers_its_second_term(net, x):
    early, seen = value(Macer(noise=NOISE, copies=4), net, x, time=0.2)
    share = shares(net, seen, 4)
    close(early.total, sum(-math.log(means(share, b)[LABELS[b]]) for b in range(B)) / B)


def test_smooth_adv_moves_all_copies_by_one_change_within_the_ball(net, x):
    loss = SmoothAdv(noise=NOISE, copies=3, radius=0.2, steps=4)
    now = moment(x)
    seen = loss.view(x, now)
    looked = []

    def watched(rows):
        looked.append(rows.detach())
        return net(rows)

    y = LABELS.repeat(3)
    found = loss(watched, net(seen), seen, y, now)
    moved = (looked[-1] - seen).view(3, B, 4)
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    assert moved[0].norm(dim=1).max() <= 0.2 + 1e-12
    assert (x + moved[0]).min() >= 0 and (x + moved[0]).max() <= 1
    torch.testing.assert_close(found.total, cross_entropy(net(looked[-1]), y))
    before, after = (means_of(net, rows) for rows in (seen, looked[-1]))
    assert (after < before).all() and found.robust.shape == (B,)


def means_of(net, rows):
    mean = net(rows).softmax(1).view(-1, B, K).mean(0)
    return mean[torch.arange(B), LABELS]


def test_smooth_mix(net, x):
    loss = SmoothMix(noise=NOISE, copies=2, weight=3.0, steps=2, step=0.1)
    looked = []

    def watched(rows):
        looked.append(rows.detach())
        return net(rows)

    now = moment(x)
    seen = loss.view(x, now)
    found = loss(watched, net(seen), seen, LABELS.repeat(2), now)
    again = moment(x)
    loss.view(x, again)
    part = torch.rand(B, 1, generator=again.generator, dtype=x.dtype) / 2
    share, mixed = shares(net, seen, 2), shares(net, looked[-1], 2)
    extra, right = 0.0, 0
    for b in range(B):
        mean, s = means(share, b), float(part[b])
        if max(range(K), key=mean.__getitem__) == LABELS[b]:
            target = [(1 - s) * p + s / K for p in mean]
            extra += sum(kl(target, copy[b]) for copy in mixed) / 2
            right += 1
    assert right > 0
    close(found.total, plain(share) + 3.0 * extra / B)
    change = (looked[-1] - seen)[:B] / part
    assert 0 < change.norm(dim=1).max() <= 0.2 + 1e-9


def test_cat_rs(net, x):
    loss = CatRS(noise=NOISE, copies=2, weight=3.0, steps=2, radius=0.3)
    looked = []

    def watched(rows):
        looked.append(rows.detach())
        return net(rows)

    now = moment(x)
    seen = loss.view(x, now)
    found = loss(watched, net(seen), seen, LABELS.repeat(2), now)
    share, worst = shares(net, seen, 2), shares(net, looked[-1], 2)
    again = moment(x)
    loss.view(x, again)
    draws = torch.rand(2, B, generator=again.generator)
    total, certain = 0.0, 0
    for b in range(B):
        hits = sum(max(range(K), key=copy[b].__getitem__) == LABELS[b] for copy in share)
        kept = max(1, sum(float(draws[i, b]) < hits / 2 for i in range(2)))
        each = sorted(-math.log(copy[b][LABELS[b]]) for copy in share)
        total += sum(each[:kept]) / 2
        if kept == 2:
            total += 3.0 * max(kl(means(share, b), copy[b]) for copy in worst)
            certain += 1
    assert 0 < certain < B
    close(found.total, total / B)
    assert 0 < (looked[-1] - seen).norm(dim=1).max() <= 0.3 + 1e-9


@pytest.mark.parametrize(
    "loss",
    [
        Consistency(noise=NOISE, weight=0.0, eta=0.0),
        SmoothMix(noise=NOISE, copies=2, weight=0.0),
        SmoothAdv(noise=NOISE, copies=2),
        Macer(noise=NOISE, copies=1, weight=0.0),
        CatRS(noise=NOISE, copies=1, weight=0.0),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_without_its_own_term_a_loss_is_noise_augmentation(net, x, loss):
    found, _ = value(loss, net, x, time=0.0)
    augmented, _ = value(NoiseAugmentation(noise=NOISE, copies=loss.copies), net, x)
    torch.testing.assert_close(found.total, augmented.total)


def test_stability_of_weight_zero_is_training_without_noise(net, x):
    found, _ = value(Stability(noise=NOISE, weight=0.0), net, x)
    torch.testing.assert_close(found.total, cross_entropy(net(x), LABELS))


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_gradient_flows_to_every_parameter(net, x, loss):
    found, _ = value(loss, net, x)
    found.total.backward()
    for parameter in net.parameters():
        assert bool(torch.isfinite(parameter.grad).all()) and parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "loss",
    [loss for loss in ALL if not isinstance(loss, SmoothAdv | SmoothMix | CatRS)],
    ids=lambda loss: type(loss).__name__,
)
def test_the_gradient_is_that_of_the_loss(net, x, loss):
    """Central differences; an attack's points would move with the weights."""
    found, _ = value(loss, net, x)
    (gradient,) = torch.autograd.grad(found.total, net[2].bias)
    for k in range(K):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                net[2].bias[k] += sign * 1e-5
                ends.append(float(value(loss, net, x)[0].total.detach()))
                net[2].bias[k] -= sign * 1e-5
        assert float(gradient[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_denoising(net, x):
    torch.manual_seed(5)
    denoiser = nn.Sequential(nn.Linear(4, 4)).double().eval()
    loss = Denoising(noise=NOISE, classifier=net, weight=0.7)
    found, seen = value(loss, denoiser, x)
    shown = denoiser(seen)
    expected = ((shown - x) ** 2).mean() + 0.7 * cross_entropy(net(shown), net(x).argmax(1))
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    assert denoiser[0].weight.grad.abs().sum() > 0
    with pytest.raises(ModelError, match="training mode"):
        Denoising(noise=NOISE, classifier=nn.Linear(4, 3).train())
    with pytest.raises(ModelError, match="keep the shape"):
        value(Denoising(noise=NOISE), net, x)


def test_diffusion_recovers_the_noise_from_what_it_shows():
    x = torch.rand(6, 1, 3, 3, dtype=torch.float64)
    loss, now = Diffusion(low=0.2, high=1.0), moment(x)
    seen = loss.view(x, now)
    again = torch.Generator().manual_seed(1)
    share = torch.rand(6, 1, 1, 1, generator=again, dtype=x.dtype)
    noise = torch.randn(x.shape, generator=again, dtype=x.dtype)
    sigma = 0.2 * 5.0**share
    torch.testing.assert_close(seen[:, :1], (x + sigma * noise) / (1 + sigma**2).sqrt())
    torch.testing.assert_close(seen[:, 1:], sigma.log().expand_as(x))
    answer = torch.cat([noise + 0.5, seen[:, 1:]], 1)
    close(loss(None, answer, seen, LABELS, now).total, 0.25)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Consistency(noise=NOISE, copies=1), "copies"),
        (lambda: Consistency(noise=NOISE, weight=-1.0), "weight"),
        (lambda: Stability(noise=NOISE, weight=float("nan")), "weight"),
        (lambda: Macer(noise=Flips(0.6, 2)), "Gaussian"),
        (lambda: SmoothAdv(noise=NOISE, radius=0.0), "radius"),
        (lambda: SmoothMix(noise=NOISE, steps=0), "steps"),
        (lambda: NoiseAugmentation(noise=0.5), "noise"),
        (lambda: Gaussian(lambda x: 0.1 + x.norm()), "Sukenik"),
        (lambda: Diffusion(low=1.0, high=0.5), "below"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()
