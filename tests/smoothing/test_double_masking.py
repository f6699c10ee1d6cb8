"""Double masking: masks that cover, the certificate against every patch, and the algorithm by hand."""

from itertools import product

import pytest
import torch
from tests.smoothing.lookup import Table
from torch import Tensor

from certus.core import ArgumentError, ModelError, Verdict
from certus.smoothing.double_masking import DoubleMasking, covering


@pytest.mark.parametrize("places", [1, 2, 5, 9, 14])
def test_some_mask_covers_every_patch(places):
    for patch, masks in product(range(1, places + 1), range(1, places + 3)):
        found = covering(places, patch, masks)
        assert 1 <= len(found) <= masks and found.shape[1] == places
        lengths = found.sum(1).tolist()
        assert len(set(lengths)) == 1
        for start in range(places - patch + 1):
            assert bool(found[:, start : start + patch].all(1).any())
        # one place shorter would not do: each interval covers length - patch + 1 starts of a patch
        assert len(found) == 1 or masks * (lengths[0] - patch) < places - patch + 1


def patched(x: Tensor, patch: int) -> Tensor:
    """x [C, H, W] with random pixels in every square, [N, C, H, W]."""
    height, width = x.shape[1:]
    found = []
    for top, left in product(range(height - patch + 1), range(width - patch + 1)):
        moved = x.clone()
        moved[:, top : top + patch, left : left + patch] = torch.rand(len(x), patch, patch)
        found.append(moved)
    return torch.stack(found)


class Module:
    """A table as a module."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __call__(self, z: Tensor) -> Tensor:
        return torch.eye(3)[self.table(z)]


@pytest.mark.parametrize("rival", [0, 1, 2])
@pytest.mark.parametrize(("patch", "masks"), [(1, 2), (2, 2), (2, 3), (3, 1)])
def test_no_patch_changes_a_certified_answer(patch, masks, rival):
    """All copies of the clean image get one class, all that a patch reaches get whatever the table says."""
    for seed, favour in product(range(4), (1.0, 0.5)):
        table, x = Table(seed, favour=1.0), torch.rand(1, 1, 4, 5)
        smoothed = DoubleMasking(Module(table), 3, patch, masks=masks)
        found = smoothed.certify(x)
        assert found.verdict == [Verdict.VERIFIED] and found.radius.tolist() == [patch]
        assert found.confidence == 1.0 and found.threat == "patch"
        table.favoured, table._favour = rival, favour
        assert smoothed.predict(patched(x[0], patch)).tolist() == [0] * ((5 - patch) * (6 - patch))


def test_one_copy_that_disagrees_certifies_nothing():
    """And some patch does change the answer of such an input, for some table."""
    fooled = certified = 0
    for seed in range(30):
        table, x = Table(seed, favour=0.97), torch.rand(1, 1, 4, 5)
        smoothed = DoubleMasking(Module(table), 3, 2, masks=2)
        found = smoothed.certify(x)
        agreed = max(found.evidence[0]["counts"]) == found.evidence[0]["n"] == 10
        assert (found.verdict[0] is Verdict.VERIFIED) == agreed == (float(found.radius[0]) == 2)
        assert found.prediction.tolist() == smoothed.predict(x).tolist()
        table.favoured, table.certain = 1 + seed % 2, True
        moved = smoothed.predict(patched(x[0], 2)) != found.prediction
        certified += agreed
        fooled += bool(moved.any())
        assert not (agreed and bool(moved.any()))
    assert certified and fooled


def shown(z: Tensor) -> Tensor:
    """Class 1 where the pixel at the top left is bright and shown, or else the one at the bottom right."""
    bright = (z[:, 0, 0, 0] > 0.9) & (z[:, 0, -1, -1] != 0.5)
    return torch.stack([~bright, bright], 1).double()


def test_the_algorithm_by_hand():
    """Four masks, one pixel each: class 1 needs both corners shown, so it holds under two masks of four."""
    x = torch.full((2, 1, 2, 2), 0.2)
    x[0, 0, 0, 0] = 1.0
    smoothed = DoubleMasking(shown, 2, 1, masks=2)
    assert smoothed.predict(x).tolist() == [0, 0]  # a tie of 2 and 2 goes to class 0, which stays
    found = smoothed.certify(x)
    assert found.verdict == [Verdict.UNKNOWN, Verdict.VERIFIED]
    assert found.evidence[0]["counts"] == [7, 3] and found.evidence[1]["counts"] == [10, 0]


def test_what_is_refused():
    for bad in (0, 1.5, True):
        with pytest.raises(ArgumentError):
            DoubleMasking(shown, 2, bad)
    with pytest.raises(ArgumentError):
        DoubleMasking(None, 2, 1)
    with pytest.raises(ArgumentError):
        DoubleMasking(shown, 2, 1, null=float("nan"))
    with pytest.raises(ArgumentError, match="images"):
        DoubleMasking(shown, 2, 1).certify(torch.rand(2, 4))
    with pytest.raises(ArgumentError, match="does not fit"):
        DoubleMasking(shown, 2, 5).certify(torch.rand(2, 1, 4, 6))
    with pytest.raises(ModelError):
        DoubleMasking(shown, 3, 1).certify(torch.rand(2, 1, 4, 6))
    with pytest.raises(ModelError, match="training"):
        DoubleMasking(torch.nn.Flatten().train(), 2, 1)
