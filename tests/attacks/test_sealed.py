"""The sealed entry: what it refuses, and that a search which lies, breaks or cheats is caught."""

from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from certus.attacks import FGSM, PGD, Attack, fit, margin
from certus.core import ArgumentError, ModelError
from certus.graph.affine import Linear
from certus.graph.graph import Graph, Node
from certus.graph.op import Input
from certus.threats import L1, L2, Box, Linf


def identity(batch=4, width=3):
    """Logits are the inputs; class 0 wins by 0.2."""
    x = torch.full((batch, width), 0.4)
    x[:, 0] = 0.6
    return nn.Identity().eval(), x, torch.zeros(batch, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class Liar(Attack):
    """Returns what it was given, whatever the region."""

    name: ClassVar[str] = "liar"
    answer: object

    def run(self, model, x, y, region, ids):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(x) if callable(self.answer) else self.answer


def spoil(x):
    """Writes into the arguments and returns them."""
    return x.fill_(9.0)


LIES = {
    "far": lambda x: x + torch.tensor([-1.0, 1.0, 0.0]),
    "just outside": lambda x: x + torch.tensor([-0.1001, 0.1001, 0.0]),
    "infinite": lambda x: torch.full_like(x, float("inf")),
    "nan": lambda x: torch.full_like(x, float("nan")),
    "in place": spoil,
    "double": lambda x: (x + 5.0).double(),
}


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.05), L1(0.1), Linf(1e-6), L2(1e-6), L1(0.0)])
@pytest.mark.parametrize("lie", LIES)
def test_lies_are_caught(lie, threat):
    model, x, y = identity()
    before = x.clone()
    result = Liar(answer=LIES[lie])(model, x, y, threat)
    assert torch.equal(x, before)
    assert bool(threat.region(x).contains(result.inputs).all())
    assert not bool(result.success.any())
    torch.testing.assert_close(result.margin, margin(result.inputs, y))
    assert result.inputs.dtype == x.dtype


def test_a_true_find_counts_and_a_tie_is_a_success():
    model, x, y = identity()
    x[:, 0], x[:, 1] = 0.75, 0.5
    found = Liar(answer=lambda x: x - torch.tensor([0.25, 0.0, 0.0]))(model, x, y, Linf(0.25))
    assert bool(found.success.all()) and found.margin.tolist() == [0.0] * 4
    worse = Liar(answer=lambda x: x + torch.tensor([0.1, 0.0, 0.0]))(model, x, y, Linf(0.25))
    assert torch.equal(worse.inputs, x) and not bool(worse.success.any())


@pytest.mark.parametrize("answer", [None, 3, torch.zeros(4), lambda x: x[:1]])
def test_candidates_of_another_shape_are_refused(answer):
    model, x, y = identity()
    with pytest.raises(ArgumentError, match="liar must return"):
        Liar(answer=answer)(model, x, y, Linf(0.1))


def test_a_clean_mistake_is_a_success_without_a_search():
    model, x, _ = identity()
    y = torch.ones(4, dtype=torch.int64)
    result = Liar(answer=RuntimeError("must not run"))(model, x, y, Linf(0.1))
    assert bool(result.success.all()) and torch.equal(result.inputs, x)
    tie = torch.full((1, 3), 0.5)
    assert bool(Liar(answer=RuntimeError())(model, tie, y[:1] * 0, Linf(0.1)).success.all())


def test_only_inputs_that_stand_are_searched():
    model, x, y = identity()
    y[1] = 2
    seen = []
    Liar(answer=lambda x: seen.append(len(x)) or x)(model, x, y, Linf(0.1))
    assert seen == [3]


def graph_of(weight, original):
    op = Linear(torch.as_tensor(weight), None)
    size = len(weight)
    return Graph((Node(Input(), (), (size,)), Node(op, (0,), (size,))), 1, original)


def test_a_graph_is_replayed_on_its_original():
    """The graph says that the first value counts double; its original does not."""
    _, x, y = identity()
    wrong = graph_of(torch.diag(torch.tensor([-5.0, 1.0, 1.0])), nn.Identity().eval())
    result = PGD(steps=5)(wrong, x, y, Linf(0.05))
    assert not bool(result.success.any())
    torch.testing.assert_close(result.margin, margin(result.inputs, y))
    right = graph_of(torch.eye(3), nn.Identity().eval())
    assert bool(PGD(steps=5)(right, x, y, Linf(0.15)).success.all())
    with pytest.raises(ModelError, match="training mode"):
        FGSM()(graph_of(torch.eye(3), nn.Dropout()), x, y, Linf(0.1))
    with pytest.raises(ArgumentError, match="shape"):
        FGSM()(right, torch.rand(4, 5), y, Linf(0.1))


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=3)], ids=["fgsm", "pgd"])
def test_training_mode_is_refused(attack):
    _, x, y = identity()
    with pytest.raises(ModelError, match="eval"):
        attack(nn.Linear(3, 3), x, y, Linf(0.1))
    inner = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).eval()
    inner[1].train()
    with pytest.raises(ModelError, match="eval"):
        attack(inner, x, y, Linf(0.1))


BAD = {
    "labels": (lambda x, y: (x, y + 3, Linf(0.1), None), "labels"),
    "float labels": (lambda x, y: (x, y.float(), Linf(0.1), None), "labels"),
    "few labels": (lambda x, y: (x, y[:2], Linf(0.1), None), "labels"),
    "nan": (lambda x, y: (x * float("nan"), y, Linf(0.1), None), "NaN"),
    "list": (lambda x, y: (x.tolist(), y, Linf(0.1), None), "floating-point"),
    "no batch": (lambda x, y: (x[0], y, Linf(0.1), None), "batch"),
    "few ids": (lambda x, y: (x, y, Linf(0.1), [1]), "ids"),
    "bad ids": (lambda x, y: (x, y, Linf(0.1), [1, 2, 3, -1]), "ids"),
    "off clip": (lambda x, y: (x + 1, y, Linf(0.1), None), "clip"),
    "small region": (lambda x, y: (x, y, L2(0.1).region(x[:2]), None), "region"),
    "other dtype": (lambda x, y: (x, y, L2(0.1).region(x.double()), None), "region"),
    "other region": (lambda x, y: (x, y, L2(0.01).region(x * 0), None), "outside its region"),
    "other box": (lambda x, y: (x, y, Box(x + 0.1, x + 0.2), None), "outside its box"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    model, x, y = identity()
    change, text = BAD[name]
    x, y, threat, ids = change(x, y)
    with pytest.raises(ArgumentError, match=text):
        FGSM()(model, x, y, threat, ids)


def test_models_that_do_not_fit_are_refused():
    _, x, y = identity()
    with pytest.raises(ModelError, match="NaN"):
        FGSM()(lambda x: x * float("nan"), x, y, Linf(0.1))
    with pytest.raises(ModelError, match="logits"):
        FGSM()(lambda x: x.sum(1), x, y, Linf(0.1))
    with pytest.raises(ArgumentError, match="float64"):
        FGSM()(nn.Linear(3, 3).double().eval(), x, y, Linf(0.1))


class Cliff(nn.Module):
    """NaN logits, or NaN gradients, away from where it starts."""

    def __init__(self, values: bool) -> None:
        super().__init__()
        self.values = values

    def forward(self, x):
        if self.values:
            return torch.where(x[:, :1] < 0.6, float("nan"), x)
        return x + 0 * (x - x.detach()).sqrt()  # the slope of sqrt at 0 is infinite: 0 * inf


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=3)], ids=["fgsm", "pgd"])
@pytest.mark.parametrize("model", [Cliff(True).eval(), Cliff(False).eval(), lambda x: x.detach()])
def test_nan_and_missing_gradients_do_not_crash(model, attack):
    _, x, y = identity()
    result = attack(model, x, y, Linf(0.15))
    assert bool(torch.isfinite(result.inputs).all() & torch.isfinite(result.margin).all())
    assert bool(Linf(0.15).region(x).contains(result.inputs).all())


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.05), L1(0.05)], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=3)], ids=["fgsm", "pgd"])
def test_one_broken_slope_does_not_stop_the_others(attack, threat):
    _, x, y = identity()

    def model(x):
        return x + 0 * (x[:, :1] - x[:, :1].detach()).sqrt() * torch.tensor([1.0, 0.0, 0.0])

    result = attack(model, x, y, threat)
    assert bool((result.margin < 0.18).all())


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("eps", [0.0, 1e-6, 1e-3, 0.5, 20.0])
@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_fit_always_lands_inside(threat, eps, clip):
    x = torch.rand(20, 1, 20, 20)
    region = threat(eps, clip=clip).region(x)
    for far in (1e-7, eps, 10.0, 1e30):
        points = fit(region, x, x + far * torch.randn_like(x))
        assert bool(region.contains(points).all())
        # Giving up would be inside as well. Below 1e-6, L1 steps are smaller than one rounding.
        if (1e-5 if threat is L1 else 0) < eps <= far <= 10:
            assert bool((points != x).flatten(1).any(1).all())
    inside = fit(region, x, x + 1e-3 * eps * torch.randn_like(x))
    assert eps < 1e-3 or not torch.equal(inside, x)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"restarts": 0},
        {"steps": 2.5},
        {"step_size": 0.0},
        {"step_size": -1.0},
        {"step_size": float("nan")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"seed": -1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        PGD(**settings)


def test_settings_are_frozen_and_described():
    attack = PGD(steps=7, seed=3)
    with pytest.raises(FrozenInstanceError):
        attack.steps = 8
    assert "steps=7" in attack.describe() and "seed=3" in attack.describe()
    assert FGSM().describe() == "FGSM()" and attack == PGD(steps=7, seed=3)


def test_broken_inputs_leave_the_batch():
    """Effort follows evidence: the two that fall at once are not evaluated again."""
    _, x, y = identity()
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x

    eps = torch.tensor([0.2, 0.2, 0.01, 0.01])
    found = PGD(steps=6, restarts=2).run(model, x, y, Linf(eps).region(x), range(4))
    assert (margin(found, y) < 0).tolist() == [True, True, False, False]
    later = sizes[3:]  # without the first answers and two steps
    assert max(later) == 2 and len(later) > 6
