"""Flips, ablations and finite sets of copies through the smoothed classifier, from input to certificate."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certus.core import ArgumentError, Verdict
from certus.smoothing import Smoothed
from certus.smoothing.derandomized import Blocks, Columns, Rows, Splitting
from certus.smoothing.noise import Ablation, Flips, PixelAblation, SparseFlips
from certus.threats import L0, Patch

SHAPE = (1, 6, 6)


class Brighter(nn.Module):
    """Class 1 where the shown pixels are bright on average, else class 0; [x, 1 - x] or x alone."""

    def __init__(self, doubled: bool = False) -> None:
        super().__init__()
        self.doubled = doubled

    def forward(self, z: Tensor) -> Tensor:
        flat = z.flatten(2).sum(2)
        score = flat[:, 0] - (flat[:, 1] if self.doubled else 18.5)
        return torch.stack([-score, score], 1)


def inputs() -> Tensor:
    """A bright, a dark and an even image, black and white."""
    even = (torch.arange(36).view(SHAPE) % 2).float()
    return torch.stack([torch.ones(SHAPE), torch.zeros(SHAPE), even])


NOISES = [
    (Flips(0.8, 36), False),
    (Flips(0.4, 36, 255), False),
    (SparseFlips(0.1, 0.2, 36), False),
    (Ablation(5, 36), True),
    (Ablation(9, 36, 0.5), False),
    (PixelAblation(5, 36), True),
]


@pytest.mark.parametrize(("noise", "doubled"), NOISES, ids=repr)
def test_random_changes_certify_whole_numbers(noise, doubled):
    found = Smoothed(Brighter(doubled).eval(), noise, 2, seed=1).certify(inputs(), n0=50, n=1000)
    assert found.prediction.tolist()[:2] == [1, 0] and found.threat in ("l0", "l0-pixels")
    assert bool((found.radius == found.radius.round()).all()) and bool(
        (found.radius[:2] >= 1).all()
    )
    record = found.evidence[0]
    lower, upper = record["probability"], record["runner_up"]
    assert float(found.radius[0]) == noise.radius(np.array([lower]), np.array([upper]))[0]


SETS = [
    (Columns(1), True, 6),
    (Rows(2), True, 6),
    (Blocks(2), True, 36),
    (Blocks(3, 0.5), False, 36),
    (Splitting(9, levels=4), False, 9),
    (Splitting(9, levels=1), False, 9),
]


@pytest.mark.parametrize(("noise", "doubled", "copies"), SETS, ids=repr)
def test_finite_sets_give_proofs(noise, doubled, copies):
    model = Brighter(doubled).eval()
    found = Smoothed(model, noise, 2, batch=7).certify(inputs())
    assert found.confidence == 1.0
    for b, x in enumerate(inputs()):
        votes = model(noise.rows(x, 0, copies)).argmax(1)
        counts = torch.bincount(votes, minlength=2)
        assert found.evidence[b]["counts"] == counts.tolist()
        assert int(found.prediction[b]) == int(counts.argmax())
        assert float(found.radius[b]) == noise.proven(counts[None].numpy(), SHAPE)[0]
        assert (found.verdict[b] is Verdict.VERIFIED) == (float(found.radius[b]) > 0)
    assert bool((found.radius[:2] > 0).all()) or noise in (Blocks(3, 0.5),)


@pytest.mark.parametrize(("noise", "doubled", "copies"), SETS[:4], ids=repr)
def test_members_of_the_threat_keep_the_class(noise, doubled, copies):
    smoothed = Smoothed(Brighter(doubled).eval(), noise, 2)
    found = smoothed.certify(inputs())
    size = found.radius.long()
    region = Patch(size).region(inputs())
    generators = [torch.Generator().manual_seed(b) for b in range(3)]
    for _ in range(10):
        moved = smoothed.predict(region.sample(generators))
        assert torch.equal(moved[size > 0], found.prediction[size > 0])


def test_certified_changes_do_not_move_the_majority():
    """Ten thousand samples of the farthest member: a wrong certificate would show."""
    smoothed = Smoothed(Brighter(True).eval(), Ablation(5, 36), 2)
    x = inputs()[:2]
    found = smoothed.certify(x, n0=50, n=2000)
    region = L0(found.radius.long()).region(x)
    worst = region.project(1 - x)
    assert bool(((worst != x).flatten(1).sum(1) == found.radius).all())
    assert torch.equal(smoothed.predict(worst, n=10_000), found.prediction)


def test_inputs_that_a_proof_is_not_about_are_refused():
    grey = torch.full((1, *SHAPE), 0.3)
    for noise in (Flips(0.8, 36), SparseFlips(0.1, 0.2, 36), Splitting(9, levels=4)):
        with pytest.raises(ArgumentError, match="values are"):
            Smoothed(Brighter().eval(), noise, 2).certify(grey)
    with pytest.raises(ArgumentError, match="images"):
        Smoothed(Brighter().eval(), Columns(2), 2).certify(torch.rand(2, 36))
