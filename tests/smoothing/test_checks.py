"""A module that cannot be used is told in one line what it was given and what helps."""

import pytest
import torch
from torch import Tensor, nn

from certus.core import ArgumentError, ModelError
from certus.smoothing import Ablation, Blocks, Columns, DoubleMasking, Gaussian, Smoothed
from certus.smoothing.outputs import SmoothedRegression

CONV = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
CONV.eval()
X = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def one_row(z: Tensor) -> Tensor:
    assert len(z) == 1
    return CONV(z)


def never(z: Tensor) -> Tensor:
    raise AssertionError


def whole_batches(z: Tensor) -> Tensor:
    return CONV(z.view(8, 3, 6, 5))


def refused(module, noise=Gaussian(0.25), x=X) -> ModelError:  # noqa: B008
    with pytest.raises(ModelError) as caught:
        Smoothed(module, noise, 3).certify(x, n=200)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("noise", "copies"), [(Columns(2), 5), (Blocks(2), 8), (Ablation(9, 90), 8)]
)
def test_channels_that_the_noise_doubles(noise, copies):
    said = refused(CONV, noise)
    for words in (f"[{copies}, 6, 6, 5]", "rows [N, 6, 6, 5] of inputs [N, 3, 6, 5]", "null=0.0"):
        assert words in str(said)
    assert isinstance(said.__cause__, RuntimeError)


def test_null_keeps_the_shape_of_the_input():
    found = Smoothed(CONV, Columns(2, null=0.0), 3).certify(X)
    assert found.confidence == 1.0


@pytest.mark.parametrize(
    ("module", "x", "words", "cause"),
    [
        (CONV, X[0], "[3, 6, 5] was read as 3 inputs; hand over a single one as x[None]", RuntimeError),
        (CONV, X[:, :2], "[8, 2, 6, 5] (RuntimeError", RuntimeError),
        (CONV, X[:, :2], "it must take [N, 2, 6, 5] for any N", RuntimeError),
        (one_row, X, "torch.cat([model(row[None]) for row in z])", AssertionError),
        (never, X, "[8, 3, 6, 5] (AssertionError); it must take [N, 3, 6, 5]", AssertionError),
        (whole_batches, X, "noisy copies [3, 3, 6, 5] (RuntimeError", RuntimeError),
    ],
)  # fmt: skip
def test_what_the_module_raised_is_told_and_chained(module, x, words, cause):
    said = refused(module, x=x)
    assert words in str(said)
    assert isinstance(said.__cause__, cause)


def test_the_advice_for_single_rows_works():
    g = Smoothed(lambda z: torch.cat([one_row(row[None]) for row in z]), Gaussian(0.25), 3)
    assert torch.equal(g.counts(X, 200), Smoothed(CONV, Gaussian(0.25), 3).counts(X, 200))


@pytest.mark.parametrize(
    "use",
    [
        lambda: SmoothedRegression(never, Gaussian(0.25)).certify(X, 0.1, n=200),
        lambda: DoubleMasking(never, 3, patch=1).certify(X),
    ],
)
def test_others_that_take_modules_tell_it_as_well(use):
    with pytest.raises(ModelError, match=r"noisy copies \[8, 3, 6, 5\]"):
        use()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda z: (CONV(z), z), "got tuple of 2; wrap .* as lambda z: model(z)[0]"),
        (lambda z: {"loss": 0.0, "logits": CONV(z)}, "got dict of loss, logits; wrap .* model(z)['logits']"),
        (lambda z: {}, "got dict"),
        (lambda z: CONV(z)[:, :1], "(8, 1): of one logit z make two, torch.cat([-z, z], 1)"),
        (lambda z: CONV(z)[:, 0], "(8,): of one logit z make two, torch.stack([-z, z], 1)"),
        (lambda z: CONV(z).argmax(1), "one_hot(labels, K).float()"),
        (lambda z: CONV(z).round().long(), "torch.int64 (8, 3): scores must be floating-point"),
    ],
)  # fmt: skip
def test_answers_that_are_no_logits(module, words):
    said = str(refused(module))
    assert all(part in said for part in words.split(" .* ")), said


def test_the_advice_for_one_logit_and_for_labels_works():
    pair = Smoothed(lambda z: torch.cat([-CONV(z)[:, :1], CONV(z)[:, :1]], 1), Gaussian(0.25), 2)
    assert (pair.counts(X, 64).sum(1) == 64).all()
    hard = Smoothed(
        lambda z: nn.functional.one_hot(CONV(z).argmax(1), 3).float(), Gaussian(0.25), 3
    )
    assert torch.equal(hard.counts(X, 200), Smoothed(CONV, Gaussian(0.25), 3).counts(X, 200))


def test_a_dtype_that_does_not_fit_names_both_ways():
    half = nn.Sequential(nn.Flatten(), nn.Linear(90, 3)).half().eval()
    with pytest.raises(ArgumentError) as caught:
        Smoothed(half, Gaussian(0.25), 3).certify(X, n=200)
    assert "x.to(torch.float16)" in str(caught.value)
    assert "model.to(torch.float32)" in str(caught.value)
    Smoothed(half, Gaussian(0.25), 3).counts(X.to(torch.float16), 8)
