"""The loop: it learns, repeats itself, resumes, and stops at the first number that is not one."""

import copy
import math
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from certus.core import ArgumentError, FileError, ModelError
from certus.smoothing import Gaussian
from certus.training import (
    RECIPES,
    Adversarial,
    Constant,
    Denoising,
    IBPLoss,
    Loss,
    Plan,
    Ramp,
    Snapshot,
    Standard,
    Value,
    interval_weights,
    train,
    train_recipe,
)
from certus.training.recipe import find_recipe
from certus.zoo import build_net

PLAN = Plan(epochs=3, batch=32, rate=Constant(3e-3))
ROBUST = replace(
    PLAN,
    eps=Ramp(low=0.0, high=0.05, begin=0.1, end=0.6),
    kappa=Ramp(low=1.0, high=0.5, begin=0.1, end=0.6),
)


@pytest.fixture(scope="session")
def digits():
    from sklearn.datasets import load_digits

    bundle = load_digits()
    x = torch.tensor(bundle.images[:256, None] / 16, dtype=torch.float32)
    return x, torch.tensor(bundle.target[:256])


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def same(a, b):
    own, other = a.state_dict(), b.state_dict()
    return all(torch.equal(own[name], other[name]) for name in own)


@pytest.mark.parametrize(("loss", "plan"), [(Standard(), PLAN), (IBPLoss(), ROBUST)])
def test_learns_and_leaves_evaluation_mode(digits, loss, plan):
    module = network()
    history = train(module, *digits, loss, plan)
    first, last = history.epochs[0], history.epochs[-1]
    assert len(history.epochs) == 3 and last.accuracy > first.accuracy + 0.2
    assert last.accuracy > 0.7
    assert not any(part.training for part in module.modules())
    assert math.isnan(first.robust)
    assert math.isnan(last.robust) == isinstance(loss, Standard)
    assert history.seconds > 0 and history.to_rows()[0]["epoch"] == 0
    if isinstance(loss, Standard):
        assert last.loss < 0.7 * first.loss


@pytest.mark.parametrize("loss", [IBPLoss(), Adversarial(steps=2)])
def test_the_seed_decides(digits, loss):
    plan = replace(ROBUST, epochs=1, eps=Constant(0.05), kappa=Constant(0.5))
    start = network()
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))  # the global state must not matter
        module = copy.deepcopy(start)
        train(module, *digits, loss, replace(plan, seed=seed))
        runs.append(module)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_resuming_equals_not_stopping(digits, tmp_path):
    loss, start, calls = Adversarial(steps=2), network(), []
    whole = copy.deepcopy(start)
    expected = train(whole, *digits, loss, ROBUST)

    def interrupt(done, total, note=""):
        calls.append(done)
        if done == 2:
            raise KeyboardInterrupt

    snapshot = Snapshot(tmp_path / "folder" / "training.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(copy.deepcopy(start), *digits, loss, ROBUST, interrupt, snapshot)
    resumed = copy.deepcopy(start)
    history = train(resumed, *digits, loss, ROBUST, interrupt, snapshot)
    assert calls == [1, 2, 3]
    assert same(whole, resumed)
    assert [e.loss for e in history.epochs] == [e.loss for e in expected.epochs]
    assert [path.name for path in snapshot.path.parent.iterdir()] == ["training.safetensors"]


def test_two_trainings_do_not_replace_each_others_snapshot(digits, tmp_path):
    snapshot, plan = Snapshot(tmp_path / "a.safetensors"), replace(PLAN, epochs=2)

    def other(done, *_):  # begins and ends while the first one is at work
        if done == 1:
            snapshot.path.unlink()
            second = replace(plan, epochs=1, seed=1)
            train(copy.deepcopy(start), *digits, Standard(), second, snapshot=snapshot)

    start = network()
    with pytest.raises(FileError, match=r"belongs to another training .other: the plan"):
        train(copy.deepcopy(start), *digits, Standard(), plan, other, snapshot)


def test_a_snapshot_whose_rows_are_damaged_is_one_line(digits, tmp_path):
    snapshot, plan = Snapshot(tmp_path / "a.safetensors"), replace(PLAN, epochs=1)
    start = network()
    train(copy.deepcopy(start), *digits, Standard(), plan, snapshot=snapshot)
    with safe_open(snapshot.path, "pt") as file:
        told = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for rows in ('[{"epoch": 0}]', "[1]", "3", "[" * 100_000, "{"):
        snapshot.path.write_bytes(save(tensors, told | {"rows": rows}))
        with pytest.raises(FileError, match=r"a\.safetensors is damaged"):
            train(copy.deepcopy(start), *digits, Standard(), plan, snapshot=snapshot)
    few = {name: value[:1] for name, value in tensors.items() if value.ndim}
    snapshot.path.write_bytes(save({n: v.contiguous() for n, v in few.items()}, told))
    with pytest.raises(FileError, match=r"a\.safetensors is damaged"):
        train(copy.deepcopy(start), *digits, Standard(), plan, snapshot=snapshot)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_snapshot_is_a_file(digits, tmp_path, kind):
    path = tmp_path / "a.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(FileError, match=f"is a {kind}"):
        train(network(), *digits, Standard(), PLAN, snapshot=Snapshot(path))


def test_a_snapshot_of_another_training_is_refused(digits, tmp_path):
    snapshot, plan = Snapshot(tmp_path / "a.safetensors"), replace(PLAN, epochs=1)
    start = network()
    train(copy.deepcopy(start), *digits, Standard(), plan, snapshot=snapshot)
    with pytest.raises(FileError, match="another training"):
        train(start, *digits, Standard(), replace(plan, seed=1), snapshot=snapshot)
    snapshot.path.write_bytes(snapshot.path.read_bytes()[:100])
    with pytest.raises(FileError, match="damaged"):
        snapshot.load("")


class Poisoned(Loss):
    """Finite at first, then what `poison` makes of it."""

    def __init__(self, poison):
        self.poison, self.calls = poison, 0

    def __call__(self, graph, logits, x, y, moment):
        self.calls += 1
        total = logits.square().mean()
        return Value(self.poison(total) if self.calls > 3 else total)


@pytest.mark.parametrize(
    ("poison", "word"),
    [
        (lambda t: t * float("nan"), "loss became nan"),
        (lambda t: t / 0.0, "loss became inf"),
        (lambda t: t + (t - t.detach()).clamp(min=0).sqrt(), "gradient"),
    ],
)
def test_what_is_not_finite_stops_before_the_weights(digits, poison, word):
    module = network()
    with pytest.raises(ModelError, match=word):
        train(module, *digits, Poisoned(poison), PLAN)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_data_outside_the_range_are_refused(digits):
    with pytest.raises(ArgumentError, match="outside clip"):
        train(network(), digits[0] * 16, digits[1], Standard(), PLAN)


def test_interval_weights_have_the_deviation_of_the_paper():
    net = nn.Sequential(nn.Conv2d(8, 64, 5), nn.Flatten(), nn.Linear(400, 300))
    interval_weights(net, seed=4)
    first = [p.clone() for p in net.parameters()]
    for layer, fan_in in ((net[0], 200), (net[2], 400)):
        assert float(layer.weight.detach().std()) == pytest.approx(
            math.sqrt(2 * math.pi) / fan_in, rel=0.03
        )
        assert not layer.bias.any()
    interval_weights(net, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, net.parameters(), strict=True))
    with pytest.raises(ModelError):
        interval_weights(nn.ReLU())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_trains(digits, name):
    module = build_net("dncnn", (1, 8, 8), 10) if name == "denoiser" else network()
    history = train_recipe(module, *digits, name, epochs=30 if name == "stability" else 10)
    last = history.epochs[-1]
    assert last.accuracy > 0.25 or (name == "denoiser" and last.loss < 0.04)
    assert RECIPES[name].about and find_recipe(RECIPES[name]) is RECIPES[name]


def test_recipes_choose_epochs_by_the_size_of_the_data():
    for recipe in RECIPES.values():
        small = recipe.start(network(), 1347)[1]
        large = recipe.start(network(), 60_000)[1]
        assert small.epochs > large.epochs >= 5
        assert small.batch < large.batch
        assert large.rate(1.0) < large.rate(0.0)
        assert recipe.start(network(), 60_000, 0.07)[1].eps(1.0) == (0.07 if recipe.norm else 0.0)


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(ArgumentError, match="crown-ibp"):
        find_recipe("magic")


def test_recipes_draw_weights_only_when_asked(digits):
    module = network()
    start = copy.deepcopy(module)
    recipe = find_recipe("ibp")
    recipe.start(module, 256)
    assert same(module, start)
    train_recipe(module, *digits, replace(recipe, rate=1e-30), epochs=1)
    torch.testing.assert_close(module[0].weight, start[0].weight)
    with pytest.raises(ArgumentError):
        recipe.start(module, 256, epochs=0, initialise=True)
    torch.testing.assert_close(module[0].weight, start[0].weight)
    recipe.start(module, 256, seed=3, initialise=True)
    interval_weights(start, 3)
    assert torch.equal(module[0].weight, start[0].weight)


class Returns(Loss):
    def __init__(self, make):
        self.make = make

    def __call__(self, graph, logits, x, y, moment):
        return self.make(logits)


class Halved(Standard):
    def view(self, x, moment):
        return x[: max(1, len(x) // 2 - 1)]


@pytest.mark.parametrize(
    ("loss", "word"),
    [
        (Standard, "got the class Standard"),
        (nn.functional.cross_entropy, "instance of Loss"),
        (
            Returns(lambda z: z.mean()),
            "Returns must return a Value such as Value.total., got Tensor",
        ),
        (Returns(lambda z: None), "got NoneType"),
        (Returns(lambda z: Value), "got type"),
        (Returns(lambda z: (z.mean(), None)), "got tuple"),
        (Returns(lambda z: Value(z.mean(1))), "0-dim"),
        (Returns(lambda z: Value(1.0)), "0-dim"),
        (Returns(lambda z: Value(z.argmax())), "0-dim floating-point"),
        (Returns(lambda z: Value(z.mean().detach())), "no gradient"),
        (Returns(lambda z: Value(z.mean(), z.mean(1))), "bool tensor"),
        (Halved(), "Halved.view must return"),
    ],
)
def test_a_loss_that_is_none_or_returns_none_is_told_in_one_line(digits, loss, word):
    module = network()
    start = copy.deepcopy(module)
    with pytest.raises(ArgumentError, match=word):
        train(module, *digits, loss, PLAN)
    assert same(module, start)


@pytest.mark.parametrize(
    ("y", "word"),
    [
        (None, "NoneType"),
        (torch.arange(255) % 10, r"\[256\]"),
        (torch.arange(256) % 10 + 1, r"0\.\.9"),
        (torch.arange(256) % 10 - 1, r"0\.\.9"),
        ((torch.arange(256) % 10).float(), "integer"),
    ],
)
def test_labels_that_do_not_fit_are_refused(digits, y, word):
    with pytest.raises(ArgumentError, match=word):
        train(network(), digits[0], y, Standard(), PLAN)


def test_one_logit_is_refused(digits):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(ModelError, match="of one logit z make two"):
        train(module, digits[0], torch.zeros(256, dtype=torch.int64), Standard(), PLAN)


def test_a_loss_without_labels_wants_rows(digits):
    loss = Denoising(noise=Gaussian(0.1))
    for y in (None, torch.zeros(3)):
        with pytest.raises(ArgumentError, match="256 rows"):
            train(nn.Conv2d(1, 1, 3, padding=1), digits[0], y, loss, PLAN)
    with pytest.raises(ArgumentError, match="must be a module"):
        Denoising(noise=Gaussian(0.1), classifier=nn.Linear)


@pytest.mark.parametrize(
    "change",
    [{"module": nn.Linear}, {"plan": Plan}, {"snapshot": "a.safetensors"}, {"progress": 3}],
)
def test_arguments_of_another_type(digits, change):
    given = {"module": network(), "x": digits[0], "y": digits[1], "loss": Standard(), "plan": PLAN}
    with pytest.raises(ArgumentError, match=next(iter(change))):
        train(**given | change)


def test_no_batch_of_one(digits):
    """Three inputs in batches of two are one batch: batch statistics need two values."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))
    train(module, digits[0][:3], digits[1][:3], Standard(), Plan(epochs=1, batch=2))
