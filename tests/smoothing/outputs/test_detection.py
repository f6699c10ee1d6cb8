"""Detection: the least overlap against a grid, boxes of a linear detector, and attacked inputs."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from tests.smoothing.outputs.known import FINE, Linear, excess, matrix, moved

from certus.core import ArgumentError, ModelError
from certus.smoothing import Gaussian
from certus.smoothing.outputs import SmoothedDetection, by_position, by_score, least_iou
from certus.smoothing.outputs.detection import overlap

SIGMA = 0.3
BOXES = torch.tensor(
    [
        [10.0, 10.0, 20.0, 30.0, 0.9, 1.0],
        [40.0, 5.0, 50.0, 25.0, 0.6, 0.0],
        [0.0, 0.0, 1.0, 1.0, 0.0, 2.0],
    ],
    dtype=torch.float64,
)


def detector(scale=1.0):
    """Three boxes that move linearly with the input [N, 6]; classes do not."""
    weights = matrix(18, 6, 2).view(3, 6, 6) * scale
    weights[:, 4] *= 0.05
    weights[:, 5] = 0.0
    return Linear(weights.view(18, 6), BOXES.flatten(), (3, 6))


def test_overlap_of_known_boxes():
    one = torch.tensor([0.0, 0.0, 2.0, 2.0], dtype=torch.float64)
    others = torch.tensor([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 3, 3], [0, 0, 1, 1], [2, 2, 0, 0]])
    found = overlap(one, others.double())
    assert found.tolist() == pytest.approx([1, 2 / 6, 0, 1 / 4, 0])


def test_the_least_overlap_is_that_of_a_dense_grid():
    rng = np.random.default_rng(0)
    tightest = 0.0
    for _ in range(60):
        reference = np.sort(rng.uniform(0, 10, (2, 2)), 0).ravel()
        low = reference + rng.uniform(-4, 2, 4)
        high = low + rng.uniform(0, 4, 4)
        grid = np.stack(
            np.meshgrid(*[np.linspace(a, b, 7) for a, b in zip(low, high, strict=True)]), -1
        ).reshape(-1, 4)
        low, high, reference, grid = map(torch.from_numpy, (low, high, reference, grid))
        least, met = float(least_iou(low, high, reference)), float(overlap(grid, reference).min())
        assert least <= met
        assert least == pytest.approx(met, abs=1e-8)
        tightest = max(tightest, least)
    assert tightest > 0.1
    wide = torch.tensor([-torch.inf, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert float(least_iou(wide, wide.abs(), reference)) == 0.0


def test_bounds_are_those_of_a_linear_detector():
    module, radius, trials = detector(), 0.2, 600
    g = SmoothedDetection(module, Gaussian(SIGMA), seed=1)
    x = torch.zeros(trials, 6, dtype=torch.float64)
    found = g.certify(x, radius, n=400, alpha=0.1)
    worst = radius * module.weights.detach().norm(dim=1).view(3, 6)
    wrong = (found.lower > BOXES - worst) | (found.upper < BOXES + worst)
    assert excess(int(wrong.flatten(1).any(1).sum()), trials, 0.1) > FINE
    assert found.boxes.shape == (trials, 3, 6)
    many = g.certify(x[:1], radius, n=100_000, alpha=0.1)
    deviation = SIGMA * module.weights.detach().norm(dim=1).view(3, 6)
    assert ((many.upper - BOXES - worst).abs() <= 0.06 * deviation + 1e-12).all()
    assert ((many.lower - BOXES + worst).abs() <= 0.06 * deviation + 1e-12).all()
    assert many.classes().tolist() == [[1, 0, 2]]
    assert many.present(0.5).tolist() == [[True, True, False]]


def test_attacked_medians_overlap_as_much_as_claimed():
    """Medians under other draws, of inputs that random attacks moved."""
    module, radius = detector(2.0), 0.3
    g = SmoothedDetection(module, Gaussian(SIGMA), seed=2)
    x = matrix(1, 6, 7) * 0.1
    found = g.certify(x, radius, n=20_000)
    attacked = moved(x[0], radius * 0.999, 25)
    medians = g.certify(attacked, 0.0, n=20_000, ids=range(50, 75)).boxes
    assert ((medians >= found.lower) & (medians <= found.upper)).all()
    bound = found.iou()[0]
    met = overlap(found.boxes[0, :, :4], medians[..., :4])
    assert (met >= bound).all()
    assert (bound[:2] > 0.4).all() and (met.amin(0)[:2] - bound[:2] < 0.4).all()
    assert (medians[..., 4] >= found.lower[..., 4]).all()
    truth = BOXES[None, :, :4]
    assert (overlap(truth, medians[..., :4]) >= found.iou(truth)[0]).all()
    assert found.certified(0.5, 0.4).tolist() == [[True, True, False]]
    assert found.certified(0.5, 0.99).tolist() == [[False, False, False]]


def test_a_class_is_certain_only_where_it_has_the_mass():
    def module(z):
        boxes = BOXES.to(z).expand(len(z), -1, -1).clone()
        boxes[:, 0, 5] = (z[:, 0] > 0).to(z)  # class 1 with probability ndtr(x0 / sigma)
        return boxes

    g = SmoothedDetection(module, Gaussian(SIGMA), seed=3)
    for at, radius, expected in [(0.5, 0.3, 1), (0.5, 0.6, -1), (-0.5, 0.3, 0), (0.05, 0.1, -1)]:
        found = g.certify(torch.full((1, 6), at, dtype=torch.float64), radius, n=5000)
        assert found.classes()[0, 0] == expected
        assert bool(found.certified(0.5, 0.5)[0, 0]) == (expected >= 0)
    assert ndtr(0.5 / SIGMA) > 0.95


def test_sorting_makes_places():
    """A module that lists its boxes in a random order, which depends on the noise."""

    def shuffled(z):
        boxes = detector()(z)
        boxes[:, 2] = BOXES[2]
        turn = (z[:, 0] > 0)[:, None, None]
        return torch.where(turn, boxes, boxes.flip(1))

    x = torch.zeros(1, 6, dtype=torch.float64)
    plain = SmoothedDetection(shuffled, Gaussian(SIGMA)).certify(x, 0.1)
    assert not plain.certified(0.5, 0.3)[0, [0, 2]].any()  # the middle one stays
    for order, places in ((by_score, [0, 1, 2]), (by_position, [0, 1, 2])):
        found = SmoothedDetection(shuffled, Gaussian(SIGMA), order=order).certify(x, 0.1)
        assert found.certified(0.5, 0.3)[0, :2].all()
        assert found.boxes[0, :2] == pytest.approx(BOXES[places][:2], abs=0.2)
    empty = BOXES[None, [2, 1, 0]]
    assert by_position(empty).argsort(1).tolist() == [[2, 1, 0]]


def test_boxes_without_classes_and_too_few_samples():
    def five(z):
        return detector()(z)[..., :5]

    x = torch.zeros(1, 6, dtype=torch.float64)
    found = SmoothedDetection(five, Gaussian(SIGMA)).certify(x, 0.1)
    assert found.certified(0.5, 0.3)[0, :2].all()
    with pytest.raises(ArgumentError, match="no column"):
        found.classes()
    few = SmoothedDetection(five, Gaussian(SIGMA)).certify(x, 0.1, n=10)
    assert not few.certified(0.0, 0.0)[0].any()
    assert (few.iou() == 0).all()
    with pytest.raises(ArgumentError, match="reference"):
        found.iou(torch.zeros(1, 2, 4))


@pytest.mark.parametrize(
    ("module", "options", "error", "words"),
    [
        (lambda z: z, {}, ModelError, r"boxes \[8, M, 5 or 6\]"),
        (lambda z: detector()(z)[..., :4], {}, ModelError, r"boxes \[8, M, 5 or 6\]"),
        (lambda z: detector()(z) / 0, {}, ModelError, "NaN or infinite"),
        (detector(), {"order": "score"}, ArgumentError, "by_score"),
        (detector(), {"order": lambda b: b}, ArgumentError, "one number for each box"),
        (detector().train(), {}, ModelError, "training mode"),
    ],
)
def test_bad_modules_and_orders(module, options, error, words):
    with pytest.raises(error, match=words) as caught:
        SmoothedDetection(module, Gaussian(SIGMA), **options).certify(
            torch.zeros(1, 6).double(), 0.1
        )
    assert "\n" not in str(caught.value)
