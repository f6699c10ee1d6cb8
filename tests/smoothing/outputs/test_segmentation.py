"""Segmentation: pixels of known probability, the chance of any false one, and the usual mistake."""

import numpy as np
import pytest
import torch
from scipy.special import bdtrc, ndtri
from tests.smoothing.outputs.known import CLEAR, FINE, excess

from certus.core import ArgumentError, ModelError
from certus.smoothing import Gaussian
from certus.smoothing.noise import PixelAblation
from certus.smoothing.outputs import SmoothedSegmentation
from certus.smoothing.outputs.segmentation import CORRECTIONS

ALPHA, TAU, SIGMA = 0.1, 0.75, 0.5


def pixels(probabilities):
    """An input [1, P] at which pixel j has class 1 with this probability under noise, else class 0."""
    return torch.tensor(SIGMA * ndtri(np.asarray(probabilities)))[None]


def signs(z):
    """Logits [N, 2, P]: class 1 where a value is positive."""
    return torch.stack([-z, z], 1)


def smoothed(**options):
    return SmoothedSegmentation(signs, Gaussian(SIGMA), 2, **{"threshold": TAU} | options)


HARD = [TAU] * 12 + [0.5] * 4 + [0.97] * 4  # true hypotheses at their worst, and false ones


@pytest.mark.parametrize(
    ("options", "trials"),
    [({}, 5000), ({"correction": "bonferroni"}, 300), ({"looks": 3, "enough": 0.5}, 300)],
)
def test_any_false_pixel_has_chance_alpha(options, trials):
    x = pixels(HARD).expand(trials, -1)
    found = smoothed(seed=1, **options).certify(x, n0=20, n=60, alpha=ALPHA)
    false = (found.prediction[:, :12] >= 0).any(1) | (found.prediction[:, 12:16] >= 0).any(1)
    assert excess(int(false.sum()), trials, ALPHA) > FINE
    assert (found.prediction[:, 16:] == 1).double().mean() > 0.1  # not vacuous
    if (
        not options
    ):  # within the loss of correction: the exact chance of 12 such pixels and two Holm steps
        one = float(
            bdtrc(next(k for k in range(61) if bdtrc(k - 1, 60, TAU) <= ALPHA / 20) - 1, 60, TAU)
        )
        assert excess(int(false.sum()), trials, 6 * one) < 0.05
        # Mistake: every pixel at alpha by itself.
        hits = np.array([record["hits"] for record in found.evidence])[:, :12]
        chosen = found.p_values[:, :12]
        mistaken = (bdtrc(hits - 1.0, 60, TAU) <= ALPHA).any(1)
        assert chosen.shape == hits.shape
        assert excess(int(mistaken.sum()), trials, ALPHA) < CLEAR


def test_many_looks_at_a_pixel_on_the_threshold_spend_alpha_once():
    found = smoothed(looks=9, seed=4).certify(
        pixels([TAU]).expand(600, -1), n0=20, n=256, alpha=ALPHA
    )
    assert excess(int((found.prediction >= 0).sum()), 600, ALPHA) > FINE
    assert sum(record["n"] < 256 for record in found.evidence) > 5  # looks do stop early


def test_selection_and_test_samples_differ():
    """Ten equal classes: the class of most test samples would look sure far too often."""

    def sectors(z):
        sector = ((z * 50).frac().add(1).frac() * 2).long().clamp(max=1)
        return torch.nn.functional.one_hot(sector, 2).movedim(-1, 1).float()

    g = SmoothedSegmentation(sectors, Gaussian(1.0), 2, threshold=0.501, seed=3)
    found = g.certify(torch.zeros(800, 1, dtype=torch.float64), n0=40, n=40, alpha=ALPHA)
    assert excess(int((found.prediction >= 0).sum()), 800, ALPHA) > FINE


def test_holm_certifies_what_bonferroni_does_and_more():
    x = pixels(np.linspace(0.7, 0.999, 60))
    few, many = (
        smoothed(correction=c).certify(x, n=300, alpha=ALPHA).prediction
        for c in ("bonferroni", "holm")
    )
    assert ((few >= 0) <= (many >= 0)).all()
    assert int((many >= 0).sum()) > int((few >= 0).sum())
    values = np.array([0.04, 0.01, 0.5])
    assert CORRECTIONS["bonferroni"](values) == pytest.approx([0.12, 0.03, 1.0])
    assert CORRECTIONS["holm"](values) == pytest.approx([0.08, 0.03, 0.5])


def test_certified_pixels_keep_their_class_and_the_radius_is_that_of_the_threshold():
    g = smoothed(seed=2)
    assert g.radius == pytest.approx(SIGMA * ndtri(TAU))
    x = pixels(np.linspace(0.05, 0.95, 19))
    found = g.certify(x, n0=200, n=5000)
    assert found.radius == g.radius
    sure = found.prediction >= 0
    assert (found.prediction[sure] == (x[sure] > 0).long()).all()
    assert (x[sure].abs() > g.radius).all()  # the true distance at which a pixel's class changes
    assert sure[0].tolist() == [abs(p - 0.5) > 0.26 for p in np.linspace(0.05, 0.95, 19)]
    assert found.certified.tolist() == [sure.double().mean()]
    assert found.confidence == 0.999


def test_looks_save_samples_and_stop_input_by_input():
    x = torch.cat([pixels([0.999] * 6), pixels([0.999] * 5 + [0.6])])
    once = smoothed().certify(x, n=4096, alpha=0.01)
    often = smoothed(looks=8).certify(x, n=4096, alpha=0.01)
    assert [r["n"] for r in once.evidence] == [4096, 4096]
    first, second = (r["n"] for r in often.evidence)
    assert first <= 128
    assert second == 4096
    assert torch.equal(once.prediction, often.prediction)
    part = smoothed(looks=8, enough=0.8).certify(x, n=4096, alpha=0.01)
    assert part.evidence[1]["n"] <= 128
    alone = smoothed(looks=8).certify(x[:1], n=4096, alpha=0.01, ids=[0])
    assert alone.evidence[0] == often.evidence[0]


def test_images_threads_batches_and_groups(monkeypatch):
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, 3, 3, padding=1).double().eval()
    x = torch.rand(5, 1, 4, 6, dtype=torch.float64)

    def run(batch=256):
        g = SmoothedSegmentation(net, Gaussian(0.3), 3, batch=batch)
        return g.certify(x, n0=30, n=200, ids=[5, 1, 2, 9, 4], alpha=ALPHA)

    expected = run()
    assert expected.prediction.shape == (5, 4, 6)
    assert {-1, 0} < set(expected.prediction.unique().tolist())
    held = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run().evidence == expected.evidence
    finally:
        torch.set_num_threads(held)
    assert run(7).evidence == expected.evidence
    monkeypatch.setattr("certus.smoothing.outputs.sampled.MEMORY", 1000)
    assert run().evidence == expected.evidence


def test_other_noise_brings_its_own_radius():
    noise = PixelAblation(8, 12)
    x = torch.rand(2, 1, 3, 4)

    def bright(z):
        return z.flatten(2).sum(1)[:, None].expand(-1, 2, -1) * torch.tensor([[-1.0], [1.0]])

    g = SmoothedSegmentation(bright, noise, 2, threshold=0.9)
    assert g.radius == float(noise.radius(0.9))
    assert g.certify(x, n=100).threat == noise.norm


X = pixels([0.9, 0.8])


@pytest.mark.parametrize(
    "call",
    [
        lambda: SmoothedSegmentation(signs, Gaussian(1.0), 1),
        lambda: smoothed(threshold=0.5),
        lambda: smoothed(threshold=1.0),
        lambda: smoothed(correction="none"),
        lambda: smoothed(looks=0),
        lambda: smoothed(enough=0.0),
        lambda: smoothed().certify(X, n0=20, n=10),
        lambda: smoothed().certify(X, alpha=0.0),
        lambda: smoothed().certify(X, ids=[1, 2]),
    ],
)
def test_bad_arguments_are_one_clear_line(call):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda z: signs(z)[:, :1], r"\[8, 2, \*pixels\]"),
        (lambda z: z, r"\[8, 2, \*pixels\]"),
        (lambda z: torch.where(signs(z) > 2.5, float("nan"), signs(z)), "NaN"),
        (lambda z: signs(z).argmax(1), "floating-point"),
        (lambda z: signs(z) + torch.rand(1), "not deterministic"),
        (lambda z: signs(z - z.mean(0)), "rest of the batch"),
    ],
)
def test_modules_that_cannot_be_used(module, words):
    with pytest.raises(ModelError, match=words) as caught:
        SmoothedSegmentation(module, Gaussian(1.0), 2).certify(X, n=500)
    assert "\n" not in str(caught.value)


def test_progress_reaches_the_total():
    seen = []
    smoothed().certify(X, n0=10, n=40, progress=lambda *a: seen.append(a))
    assert seen[-1] == (50, 50)
