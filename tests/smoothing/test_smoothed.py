"""Smoothed: the same answer for any batch, few calls of the module, and loud refusals."""

from math import ceil

import pytest
import torch
from torch import Tensor, nn

from certus.core import ArgumentError, ModelError
from certus.core.random import reseed
from certus.smoothing import Gaussian, Smoothed
from certus.smoothing.draws import ATTACK, BLOCK, ESTIMATE, Stream


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3, bias=False)
    return nn.Sequential(*layers).to(dtype).eval()


def inputs(size: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)


def smoothed(**options) -> Smoothed:
    return Smoothed(net(), Gaussian(0.7), 3, **options)


@pytest.mark.parametrize("batch", [1, 7, 99, 100, 101, 256, 1024, 5000])
@pytest.mark.parametrize("n", [1, 60, 100, 250])
def test_any_batch_gives_the_same_counts(batch, n):
    expected = smoothed(batch=1024).counts(inputs(), n)
    assert torch.equal(smoothed(batch=batch).counts(inputs(), n), expected)
    assert (expected.sum(1) == n).all()
    assert len(expected.unique(dim=0)) > 1 or n == 1


def test_counts_are_those_of_the_plain_definition():
    """Straight from the definition, sample by sample, with the documented keys."""
    model, x, n, ids = net(), inputs(2), 300, [7, 3]
    for b, key in enumerate(ids):
        stream = Stream.of(Gaussian(0.7), 5, key, ESTIMATE)
        blocks = []
        for block in range(2):
            reseed(own := torch.Generator(), stream.key(block))
            blocks.append(Gaussian(0.7).sample((4 * BLOCK, 1, 3, 4), own, x.dtype))
        draws = torch.cat(blocks)[:n]
        winners = torch.stack([model(x[b : b + 1] + e).argmax() for e in draws])
        expected = torch.bincount(winners, minlength=3)
        assert torch.equal(smoothed(seed=5).counts(x, n, ids, ESTIMATE)[b], expected)


def test_order_and_split_of_inputs_do_not_matter():
    x, ids = inputs(6), [10, 11, 12, 13, 14, 15]
    whole = smoothed().certify(x, n=150, ids=ids)
    order = [3, 0, 5, 1, 4, 2]
    turned = smoothed().certify(x[order], n=150, ids=[ids[i] for i in order])
    assert torch.equal(turned.radius, whole.radius[order])
    assert torch.equal(turned.prediction, whole.prediction[order])
    for b in range(6):
        alone = smoothed(batch=7).certify(x[b : b + 1], n=150, ids=[ids[b]])
        assert alone.evidence[0] == whole.evidence[b]
        assert torch.equal(alone.radius, whole.radius[b : b + 1])
    assert len(whole.radius.unique()) > 1


def test_seed_id_and_stage_change_the_draws():
    x = inputs(1)
    base = smoothed().counts(x, 5000)
    assert torch.equal(smoothed().counts(x, 5000, [0]), base)
    for other in (
        smoothed(seed=1).counts(x, 5000),
        smoothed().counts(x, 5000, [1]),
        smoothed().counts(x, 5000, stage=ESTIMATE),
    ):
        assert not torch.equal(other, base)


def test_default_ids_are_positions_and_samples_extend():
    x = inputs(3)
    assert torch.equal(smoothed().counts(x, 200), smoothed().counts(x, 200, [0, 1, 2]))
    more = smoothed().counts(x, 300) - smoothed().counts(x, 200)
    assert (more >= 0).all()


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.rows = net(), [], []

    def forward(self, z: Tensor) -> Tensor:
        self.calls.append(len(z))
        return self.inner(z)


def test_samples_are_evaluated_in_batches():
    """Mistake 6: one call for each sample. Here a call is filled with samples of several inputs."""
    model, n, size, batch = Counting().eval(), 250, 4, 500
    Smoothed(model, Gaussian(0.7), 3, batch=batch).counts(inputs(size), n)
    work = [rows for rows in model.calls if rows > 8]
    assert sum(work) == n * size
    assert max(model.calls) <= batch
    assert len(model.calls) <= ceil(n * size / (batch - BLOCK)) + 5  # 5 calls check the module


@pytest.mark.parametrize("batch", [7, 150])
def test_no_call_exceeds_the_batch(batch):
    model = Counting().eval()
    Smoothed(model, Gaussian(0.7), 3, batch=batch).certify(inputs(2), n0=10, n=130)
    assert max(model.calls) <= max(batch, 8)
    assert len(model.calls) <= 2 * (10 + 130) // min(batch, BLOCK) + 9


def test_inputs_and_module_are_left_alone():
    def greedy(z: Tensor) -> Tensor:
        z.mul_(2)  # a careless module works in place
        return z.flatten(1)[:, :3].clone()

    x = inputs()
    before = x.clone()
    result = Smoothed(greedy, Gaussian(0.1), 3).counts(x, 300)
    clean = Smoothed(lambda z: 2 * z.flatten(1)[:, :3], Gaussian(0.1), 3).counts(x, 300)
    assert torch.equal(x, before)
    assert torch.equal(result, clean)


def test_progress_reaches_the_total():
    seen = []
    smoothed(batch=100).certify(inputs(2), n0=100, n=200, progress=lambda *a: seen.append(a))
    assert seen[0] == (200, 600, "selection")
    assert seen[-1] == (600, 600, "estimation")
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_dtype_follows_the_module():
    x = inputs(2, torch.float32)
    double = Smoothed(net(), Gaussian(0.7), 3)
    assert torch.equal(double.counts(x, 100), double.counts(x.double(), 100))
    single = Smoothed(net(torch.float32), Gaussian(0.7), 3)
    assert (single.counts(x, 100).sum(1) == 100).all()
    with pytest.raises(ArgumentError, match="fit exactly"):
        single.counts(inputs(2), 100)


def test_expected_is_the_log_mean_softmax():
    x, ids = inputs(3), [4, 9, 2]
    found = smoothed(batch=10).expected(x, 16, ids)
    for b, key in enumerate(ids):
        draws = torch.empty(16, 1, 3, 4, dtype=x.dtype)
        Stream.of(Gaussian(0.7), 0, key, ATTACK).fill(draws, 0, torch.Generator())
        mean = net()(x[b] + draws).softmax(1).mean(0)
        assert torch.allclose(found[b].exp(), mean)
    assert torch.equal(found, smoothed(batch=10).expected(x, 16, ids))
    assert torch.allclose(found[1:2], smoothed().expected(x[1:2], 16, [9]))


def test_expected_has_the_gradient_of_its_value():
    x = inputs(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: smoothed(batch=2).expected(z, 3), (x[:1],))
    model = net()
    Smoothed(model, Gaussian(0.7), 3).expected(x, 4).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_certificates_carry_no_gradient():
    x = inputs(2).requires_grad_()
    result = smoothed().certify(x, n=100)
    assert not result.radius.requires_grad


GOOD = {"module": net(), "noise": Gaussian(1.0), "num_classes": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"module": None},
        {"noise": 0.25},
        {"noise": Gaussian},
        {"num_classes": 1},
        {"num_classes": 3.0},
        {"seed": -1},
        {"seed": 0.5},
        {"batch": 0},
        {"batch": True},
        {"graph": net()},
    ],
)
def test_bad_configuration(change):
    with pytest.raises(ArgumentError):
        Smoothed(**{**GOOD, **change})


X = inputs(2)


@pytest.mark.parametrize(
    "call",
    [
        lambda g: g.certify(X, n0=0, n=10),
        lambda g: g.certify(X, n0=11, n=10),
        lambda g: g.certify(X, n0=1, n=0),
        lambda g: g.certify(X, n=100.0),
        lambda g: g.certify(X, n=100, alpha=0.0),
        lambda g: g.certify(X, n=100, alpha=1.0),
        lambda g: g.certify(X, n=100, alpha=-0.1),
        lambda g: g.certify(X, n=100, alpha=float("nan")),
        lambda g: g.certify(X, n=100, ids=[0]),
        lambda g: g.certify(X, n=100, ids=[0, 1, 2]),
        lambda g: g.certify(X, n=100, ids=[0, -1]),
        lambda g: g.certify(X, n=100, ids=[0, 0.5]),
        lambda g: g.certify(X, n=100, ids=3),
        lambda g: g.certify(X * float("nan"), n=100),
        lambda g: g.certify(X.long(), n=100),
        lambda g: g.certify(X[:0], n=100),
        lambda g: g.certify([[0.0]], n=100),
        lambda g: g.predict(X, n=0),
        lambda g: g.predict(X, alpha=2.0),
        lambda g: g.predict(X, ids=[1]),
        lambda g: g.counts(X, 0),
        lambda g: g.counts(X, 10, stage=0),
        lambda g: g.expected(X, 0),
        lambda g: g.expected(X, 4, ids=[1]),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ArgumentError):
        call(Smoothed(**GOOD))


def hidden_dropout(z: Tensor) -> Tensor:
    return nn.functional.dropout(z.flatten(1)[:, :3], 0.5, training=True)


def batch_statistics(z: Tensor) -> Tensor:
    flat = z.flatten(1)[:, :3]
    return flat - flat.mean(0)


def position_matters(z: Tensor) -> Tensor:
    return z.flatten(1)[:, :3] + torch.arange(len(z))[:, None]


def nan_somewhere(z: Tensor) -> Tensor:
    """NaN on a rare event only, which the first check cannot see."""
    flat = z.flatten(1)[:, :3]
    return torch.where(flat > 2.5, float("nan"), flat)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (hidden_dropout, "deterministic"),
        (batch_statistics, "rest of the batch"),
        (position_matters, "rest of the batch"),
        (nan_somewhere, "NaN"),
        (lambda z: z.flatten(1)[:, :3] / 0, "NaN or infinite"),
        (lambda z: z.flatten(1)[:, :4], "4 logits but num_classes is 3"),
        (lambda z: z.flatten(1)[:, 0], "logits"),
        (lambda z: z.flatten(1)[:1, :3], "logits"),
        (lambda z: None, "logits"),
    ],
)
@pytest.mark.parametrize("use", ["predict", "certify"])
def test_modules_that_cannot_be_used(module, words, use):
    with pytest.raises(ModelError, match=words):
        getattr(Smoothed(module, Gaussian(1.0), 3), use)(inputs(), n=500)


def test_training_mode_is_refused():
    model = nn.Sequential(net(), nn.Dropout(0.5))
    with pytest.raises(ModelError, match="training mode"):
        Smoothed(model, Gaussian(1.0), 3)
    model.eval()
    ready = Smoothed(model, Gaussian(1.0), 3)
    ready.counts(inputs(), 10)
    model[1].train()
    for call in (ready.counts, ready.predict, ready.expected):
        with pytest.raises(ModelError, match="'1' is in training mode"):
            call(inputs(), 10)
    with pytest.raises(ModelError, match="training mode"):
        ready.certify(inputs(), n0=1, n=10)
