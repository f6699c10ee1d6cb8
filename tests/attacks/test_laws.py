"""Laws of every attack in every norm: what a result may claim, and on what it may depend."""

import pytest
import torch
from torch import nn

from certus.attacks import FGSM, PGD, margin
from certus.certifiers import ATTACKS as TABLE
from certus.threats import L1, L2, Box, Linf

SMALL = PGD(steps=5, restarts=3)
ATTACKS = {
    "fgsm": FGSM(),
    "pgd": SMALL,
    "momentum": PGD(steps=5, restarts=2, momentum=0.9, targeted=False, step_size=0.5),
}
CLIP = (0.0, 1.0)
EPS = {"linf": 0.04, "l2": 0.3, "l1": 1.5, "box": 0.04, "each": 0.04, "element": 0.3}


def threat_of(name, x, clip=CLIP):
    eps = EPS[name]
    match name:
        case "box":
            return Box((x - eps).clamp(0, 1), (x + eps / 2).clamp(0, 1))
        case "each":
            return Linf(torch.linspace(0, eps, len(x), dtype=x.dtype), clip=clip)
        case "element":  # with some elements that may not move
            return L2(eps * (torch.rand_like(x) > 0.2), clip=clip)
        case _:
            return {"linf": Linf, "l2": L2, "l1": L1}[name](eps, clip=clip)


@pytest.fixture(params=["mlp", "conv"])
def case(request):
    """(model, x, y): some labels are wrong, some pixels lie at the limits of their range."""
    if request.param == "mlp":
        model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5))
        x = torch.rand(10, 30)
    else:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))
        x = torch.rand(10, 1, 6, 6)
    x = (1.4 * x - 0.2).clamp(0, 1)
    model = model.eval()
    for p in model.parameters():
        p.data *= 1.5
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    return model, x, y


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_results_hold_what_they_claim(case, attack, norm):
    model, x, y = case
    threat = threat_of(norm, x)
    result = attack(model, x, y, threat)
    assert result.inputs.shape == x.shape and result.inputs.dtype == x.dtype
    assert bool(threat.region(x).contains(result.inputs).all())
    assert bool(((result.inputs >= 0) & (result.inputs <= 1)).all())
    replayed = margin(model(result.inputs).detach(), y)
    torch.testing.assert_close(result.margin, replayed)
    assert torch.equal(result.success, result.margin <= 0)
    assert torch.equal(result.success, replayed <= 0)
    clean = margin(model(x).detach(), y)
    assert bool(
        (result.margin <= clean + 1e-6).all()
    )  # alone and in a batch an input rounds otherwise
    assert bool(result.success[0]) and torch.equal(result.inputs[0], x[0])


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("targeted", [True, False])
def test_pgd_is_never_weaker_than_fgsm(case, norm, targeted):
    model, x, y = case
    threat = threat_of(norm, x)
    weak, strong = (
        FGSM()(model, x, y, threat),
        PGD(steps=6, restarts=2, targeted=targeted)(model, x, y, threat),
    )
    assert bool((strong.success | ~weak.success).all())
    survived = ~strong.success
    assert bool(survived.any()) and bool(strong.success.any())
    assert bool((strong.margin[survived] <= weak.margin[survived] + 1e-6).all())


@pytest.mark.parametrize("threat", [Linf(0.15), L2(0.7), L1(2.0)], ids=["linf", "l2", "l1"])
def test_pgd_beats_fgsm_where_the_model_bends(threat):
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 5)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
        model[0].bias.sub_(model[0].weight.sum(1) / 2)  # many kinks near the inputs
    x = torch.rand(40, 20)
    y = model(x).argmax(1)
    weak = int(FGSM()(model, x, y, threat).success.sum())
    assert int(PGD(steps=20)(model, x, y, threat).success.sum()) > weak > 0


def test_attacks_find_something(case):
    """Guards the other laws against an attack that never moves."""
    model, x, y = case
    clean = margin(model(x).detach(), y)
    for attack in ATTACKS.values():
        for norm in EPS:
            moved = (attack(model, x, y, threat_of(norm, x)).margin < clean)[1:]
            assert int(moved.sum()) >= len(moved) - 1, (attack.name, norm)


@pytest.mark.parametrize("clip", [CLIP, None])
@pytest.mark.parametrize("threat", [Linf, L2, L1])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_succeeds_without_room(case, attack, threat, clip):
    model, x, y = case
    result = attack(model, x, y, threat(0.0, clip=clip))
    assert torch.equal(result.inputs, x)
    assert result.success.tolist() == [True] + [False] * 9


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "box"])
def test_order_and_batch_do_not_matter(case, norm):
    model, x, y = case
    model, x, ids = model.double(), x.double(), [7 * i + 3 for i in range(10)]
    threat = threat_of(norm, x)
    region = threat.region(x)
    whole = SMALL(model, x, y, region, ids)
    order = torch.randperm(10)
    shuffled = SMALL(model, x[order], y[order], region.select(order), [ids[i] for i in order])
    torch.testing.assert_close(shuffled.inputs, whole.inputs[order], atol=1e-8, rtol=0)
    for b in (0, 4, 9):
        one = torch.tensor([b])
        alone = SMALL(model, x[one], y[one], region.select(one), [ids[b]])
        torch.testing.assert_close(alone.inputs[0], whole.inputs[b], atol=1e-8, rtol=0)


def test_seeds_decide_the_draws(case):
    model, x, y = case
    threat = L2(0.05)
    first, again = SMALL(model, x, y, threat), SMALL(model, x, y, threat)
    assert torch.equal(first.inputs, again.inputs)
    one_step = PGD(steps=1, step_size=1e-6, restarts=4, seed=0)
    other = PGD(steps=1, step_size=1e-6, restarts=4, seed=1)
    a, b = one_step(model, x, y, threat), other(model, x, y, threat)
    c = one_step(model, x, y, threat, ids=range(10, 20))
    assert not torch.equal(a.inputs, b.inputs) and not torch.equal(a.inputs, c.inputs)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_is_left_behind(case, attack):
    model, x, y = case
    weights = [p.clone() for p in model.parameters()]
    frozen = next(model.parameters()).requires_grad_(False)
    leaf = x.clone().requires_grad_()
    plain = attack(model, leaf, y, Linf(0.04))
    with torch.no_grad():
        quiet = attack(model, x, y, Linf(0.04))
    with torch.inference_mode():
        inference = attack(model, x.clone(), y, Linf(0.04))
    assert torch.equal(plain.inputs, quiet.inputs) and torch.equal(plain.inputs, inference.inputs)
    assert leaf.grad is None and not plain.inputs.requires_grad and not plain.margin.requires_grad
    assert all(p.grad is None for p in model.parameters()) and not frozen.requires_grad
    assert sum(p.requires_grad for p in model.parameters()) == len(weights) - 1
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert torch.equal(leaf, x)


def test_every_attack_of_the_table_is_held_to_the_laws():
    assert set(TABLE) <= set(ATTACKS)
