"""Trainings for smoothing: they repeat, take batch normalisation and any noise, and certify more."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from certus.core import ArgumentError
from certus.graph import trace
from certus.smoothing import Gaussian
from certus.smoothing.derandomized import Columns, Splitting
from certus.smoothing.noise import PixelAblation
from certus.training import (
    CatRS,
    Consistency,
    Cosine,
    Denoised,
    Denoising,
    Diffusion,
    Ensemble,
    Macer,
    NoiseAugmentation,
    OneStep,
    Plan,
    SmoothAdv,
    SmoothMix,
    Stability,
    Standard,
    train,
)
from certus.training.noisy.copies import noisy
from certus.zoo import build_net, load_data

NOISE = Gaussian(0.25)
PLAN = Plan(epochs=1, batch=32, rate=Cosine(rate=3e-3))
LOSSES = [
    Stability(noise=NOISE),
    Consistency(noise=NOISE),
    SmoothAdv(noise=NOISE, copies=2, steps=2, warmup=0.5),
    SmoothMix(noise=NOISE, copies=2, steps=2),
    CatRS(noise=NOISE, copies=2, steps=2),
    Macer(noise=NOISE, copies=4),
]


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def radii(module, x, y, sigma, n=300):
    """Estimated radii [B] of inputs that are classified as y (0 elsewhere), from n shared draws."""
    generator = torch.Generator().manual_seed(5)
    hits = torch.zeros(len(x))
    with torch.no_grad():
        for _ in range(n):
            seen = x + sigma * torch.randn(x.shape, generator=generator)
            hits += module(seen).argmax(1) == y
    share = (hits / n).clamp(max=1 - 1 / n)
    return torch.where(share > 0.5, sigma * Normal(0, 1).icdf(share.clamp(min=0.1)), 0.0)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_batch_normalisation_sees_all_copies_and_the_seed_decides(digits, loss):
    x, y = digits.x_train[:96], digits.y_train[:96]
    start = build_net("cnn-bn", digits.shape, 10)
    nets = [copy.deepcopy(start) for _ in range(3)]
    plans = [PLAN, PLAN, replace(PLAN, seed=1)]
    for net, plan in zip(nets, plans, strict=True):
        train(net, x, y, loss, plan)
    first, again, other = (torch.cat([p.detach().flatten() for p in n.parameters()]) for n in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)
    norm = next(m for m in nets[0].modules() if isinstance(m, nn.BatchNorm2d))
    assert int(norm.num_batches_tracked) == 0 and not torch.equal(
        norm.running_var, torch.ones_like(norm.running_var)
    )
    assert all(bool(torch.isfinite(p).all()) for p in nets[0].parameters())


def test_a_view_of_another_shape_is_what_the_network_takes(digits):
    x, y = digits.x_train[:256], digits.y_train[:256]
    noise = PixelAblation(keep=24, size=64)
    rows = noise.rows_shape(digits.shape)
    history = train(
        build_net("mlp", rows, 10), x, y, NoiseAugmentation(noise=noise), replace(PLAN, epochs=6)
    )
    assert history.epochs[-1].accuracy > history.epochs[0].accuracy + 0.1


@pytest.mark.parametrize("noise", [Columns(3, 0.0), Columns(2), Splitting(5, 16)])
def test_a_set_of_copies_gives_each_row_one_of_them_evenly(digits, noise):
    x = digits.x_train[:2]
    shape = tuple(x.shape[1:])
    n = noise.copies(shape)
    rows = noisy(x, noise, 100 * n, torch.Generator().manual_seed(0)).unflatten(0, (-1, 2))
    assert rows.shape[2:] == noise.rows_shape(shape)
    for b in range(2):
        copies = noise.rows(x[b], 0, n)
        same = (rows[:, b, None] == copies).flatten(2).all(2)
        assert (same.sum(1) >= 1).all()
        distinct = (copies[:, None] == copies).flatten(2).all(2).double()
        expected = 100 * distinct.sum(1)  # equal copies are drawn for each other
        assert ((same.sum(0) - expected).abs() < 5 * expected.sqrt()).all()


def test_attacks_do_not_take_a_set_of_copies():
    with pytest.raises(ArgumentError, match="under additive noise"):
        SmoothAdv(noise=Columns(3, 0.0))


def test_consistency_certifies_more_than_training_without_noise(digits):
    found = []
    for loss in (Standard(), Consistency(noise=NOISE)):
        net = build_net("mlp", digits.shape, 10).eval()
        train(net, digits.x_train, digits.y_train, loss, replace(PLAN, epochs=8))
        found.append(
            float((radii(net, digits.x_test, digits.y_test, 0.25, 100) > 0.4).double().mean())
        )
    assert found[1] > found[0] + 0.1


@pytest.mark.slow
def test_too_much_consistency_at_sigma_1_loses_radius_and_accuracy(shared_data):
    data = load_data("mnist", shared_data)
    radius = {}
    for weight in (0.0, 5.0, 25.0):
        net = build_net("mlp", data.shape, 10).eval()
        loss = Consistency(noise=Gaussian(1.0), weight=weight)
        plan = Plan(epochs=12, batch=64, rate=Cosine(rate=2e-3, last=2e-5))
        train(net, data.x_train[:4000], data.y_train[:4000], loss, plan)
        radius[weight] = radii(net, data.x_test[:500], data.y_test[:500], 1.0)
    average = {weight: float(r.mean()) for weight, r in radius.items()}
    right = {weight: float((r > 0).double().mean()) for weight, r in radius.items()}
    assert average[5.0] > average[0.0] + 0.04
    assert average[25.0] < average[5.0] - 0.03 and right[25.0] < right[5.0] - 0.02 < right[0.0]


def test_a_denoiser_certifies_a_classifier_that_never_saw_noise(digits):
    x, y = digits.x_train, digits.y_train
    classifier = build_net("mlp", digits.shape, 10).eval()
    train(classifier, x, y, Standard(), replace(PLAN, epochs=8))
    before = copy.deepcopy(classifier.state_dict())
    denoiser = build_net("dncnn", digits.shape, 10)
    loss = Denoising(noise=Gaussian(0.5), classifier=classifier, weight=0.1)
    history = train(denoiser, x, y, loss, replace(PLAN, epochs=5))
    assert history.epochs[-1].loss < 0.6 * history.epochs[0].loss
    assert all(torch.equal(v, classifier.state_dict()[k]) for k, v in before.items())
    both = Denoised(denoiser, classifier).eval()
    alone, denoised = (
        float(radii(net, digits.x_test, digits.y_test, 0.5, 50).mean())
        for net in (classifier, both)
    )
    assert denoised > alone + 0.05
    assert trace(both, x[:1]).output_shape == (10,)


def test_one_step_of_a_diffusion_takes_noise_off_at_every_level(digits):
    body = build_net("dncnn", (2, 8, 8), 10)
    train(
        body, digits.x_train, digits.y_train, Diffusion(low=0.2, high=1.0), replace(PLAN, epochs=5)
    )
    generator = torch.Generator().manual_seed(3)
    for sigma in (0.25, 0.5):
        seen = digits.x_test + sigma * torch.randn(digits.x_test.shape, generator=generator)
        with torch.no_grad():
            shown = OneStep(body, sigma)(seen)
        clipped = ((seen.clamp(0, 1) - digits.x_test) ** 2).mean()
        assert ((shown - digits.x_test) ** 2).mean() < 0.75 * clipped
    assert trace(OneStep(body, 0.5).eval(), digits.x_test[:1]).output_shape == (1, 8, 8)


def test_an_ensemble_is_the_mean_of_logits_and_trains_as_one(digits):
    members = [build_net("mlp-small", digits.shape, 10, seed=s).eval() for s in (1, 2)]
    both, x = Ensemble(members).eval(), digits.x_test[:5]
    torch.testing.assert_close(both(x), (members[0](x) + members[1](x)) / 2)
    history = train(
        both,
        digits.x_train,
        digits.y_train,
        NoiseAugmentation(noise=NOISE),
        replace(PLAN, epochs=3),
    )
    assert history.epochs[-1].accuracy > 0.2
