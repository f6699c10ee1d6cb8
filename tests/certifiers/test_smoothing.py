"""Certificates of smoothed classifiers behind the sealed call: norms, grids, rules, evidence."""

from statistics import NormalDist

import pytest
import torch
from torch import Tensor, nn

import certus
from certus.certifiers import certifier
from certus.certifiers.reach import within
from certus.core import ArgumentError, Reason, UnsupportedError, Verdict
from certus.core.kinds import to_json
from certus.core.progress import silent
from certus.smoothing import Gaussian
from certus.smoothing.derandomized import Columns, Splitting
from certus.smoothing.names import rule_named
from certus.smoothing.noise import Ablation, Flips, Laplace, PixelAblation, Uniform
from certus.smoothing.rules import AtRadius
from certus.threats import L0, Patch, parse

X = torch.full((4, 1, 4, 4), 0.5)
Y = torch.tensor([1, 1, 0, 1])


class Bright(nn.Module):
    """Class 1 where the values add up to more than `bar`."""

    def __init__(self, bar: float) -> None:
        super().__init__()
        self.sum = nn.Linear(16, 2)
        with torch.no_grad():
            self.sum.weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
            self.sum.bias.copy_(torch.tensor([bar, -bar]))

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(x.flatten(1))


@pytest.fixture
def graph() -> certus.Graph:
    return certus.trace(Bright(4.0).eval(), X)  # at distance 1 from X in L2, 4 in L1


CASES = {
    "gaussian": (Gaussian(0.5), certus.L2(0.3), 1.0),
    "gaussian in linf": (Gaussian(0.5), certus.Linf(0.1), 0.25),
    "laplace": (Laplace(0.5), certus.L1(0.5), 4.0),
    "uniform": (Uniform(0.8), certus.L1(0.5), 4.0),
    "splitting": (Splitting(6, 10), certus.L1(0.1), 4.0),
    "ablation": (Ablation(4, 16, 1.0), L0(1), 16.0),
    "pixel ablation of values": (PixelAblation(4, 16, 1.0), L0(1), 16.0),
    "flips": (Flips(0.9, 16, 2), L0(1), 16.0),
    "columns": (Columns(1, 1.0), Patch(1), 4.0),
}


@pytest.mark.parametrize("name", CASES)
def test_every_noise_answers_its_threat(graph, name):
    noise, threat, most = CASES[name]
    x = X if name != "splitting" else (X * 10).round() / 10
    quantised = name in ("splitting", "flips")
    method = certifier("smoothing", noise=noise, n=2000, quantised=quantised)
    found = method(graph, x, Y, threat)
    assert found.certified.tolist() == [True, True, False, True]
    assert found.reason[2] is Reason.WRONG_CLASS
    assert found.radius[2] == 0
    assert float(threat.radius(x)[0]) <= float(found.radius[0]) <= most
    assert found.confidence == (1.0 if name in ("splitting", "columns") else 0.999)
    assert found.evidence[0]["noise"] == to_json(noise)
    assert sum(found.evidence[2]["counts"]) == found.evidence[2]["n"]


def test_threats_that_are_too_large_or_of_another_kind(graph):
    method = certifier("smoothing", noise=Uniform(0.8), n=2000)
    assert not method(graph, X, Y, certus.L1(2.0)).certified.any()
    for threat in (L0(1), Patch(1), certus.Box(X - 0.1, X + 0.1)):
        with pytest.raises(UnsupportedError, match="certifies l1"):
            method(graph, X, Y, threat)


@pytest.mark.parametrize("noise", [Splitting(6, 10), Flips(0.9, 16, 2)])
def test_a_proof_about_the_grid_is_not_taken_for_more(noise):
    with pytest.raises(ArgumentError, match="off its grid"):
        certifier("smoothing", noise=noise)


def test_a_rule_stops_early_and_says_so(graph):
    rule = AtRadius(radius=0.25, n0=50, n=50_000)
    found = certifier("smoothing", noise=Gaussian(0.5), rule=rule)(graph, X, Y, certus.L2(0.2))
    assert found.certified.tolist() == [True, True, False, True]
    assert all(record["n"] < 1000 for record in found.evidence)
    assert found.evidence[0]["rule"] == to_json(rule)
    assert (found.radius[[0, 1, 3]] >= 0.25).all()


def test_shared_draws_use_the_graph(graph):
    own = certifier("smoothing", noise=Gaussian(0.5), n=500)(graph, X, Y, certus.L2(0.2))
    shared = certifier("smoothing", noise=Gaussian(0.5), n=500, shared=True)
    found = shared(graph, X, Y, certus.L2(0.2))
    assert len({tuple(record["counts"]) for record in found.evidence}) == 1
    assert len({tuple(record["counts"]) for record in own.evidence}) > 1


@pytest.mark.parametrize("threat", [certus.L2(0.1), certus.Linf(0.1), certus.Box(X - 0.1, X + 0.1)])
def test_a_radius_that_is_no_number_proves_nothing(graph, threat):
    method = certifier("smoothing")
    query = method._query(graph, X, Y, threat, None, silent)
    radius = torch.tensor([float("nan"), -1.0, 0.0, float("inf")], dtype=torch.float64)
    answers = within(query, radius)
    assert [a.verdict is Verdict.VERIFIED for a in answers] == [False, False, False, True]
    assert [a.radius for a in answers[:3]] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", [n for n in CASES if " " not in n])
@pytest.mark.parametrize(
    "rule", ["fixed", "two-sided", "largest", "at-radius:0.2", "precision:0.2"]
)
def test_no_radius_is_larger_than_the_most(name, rule):
    """Copies that all agree reach it where the rule takes all samples, and nothing exceeds it."""
    noise, _, _ = CASES[name]
    kept = {} if rule == "fixed" else {"rule": rule_named(rule, 50, 2000)}
    quantised = name in ("splitting", "flips")
    method = certifier("smoothing", noise=noise, n0=50, n=2000, quantised=quantised, **kept)
    most = method.most((1, 4, 4), 2)
    x = X if name != "splitting" else (X * 10).round() / 10
    dark = certus.trace(Bright(1e6).eval(), X)  # of equal votes the first class gets them
    sure = method(dark, x, torch.zeros(4).long(), parse(f"{noise.norm}:0"))
    assert 0 < float(sure.radius.max()) <= most
    if rule in ("fixed", "two-sided"):
        assert float(sure.radius.max()) == most


def test_the_most_of_gaussian_noise_is_that_of_its_samples():
    method = certifier("smoothing", sigma=0.5, n=1000, alpha=0.01)
    expected = 0.5 * NormalDist().inv_cdf(0.01 ** (1 / 1000))
    assert method.most((1, 4, 4), 2) == pytest.approx(expected, rel=1e-9)


def test_sigma_is_short_for_gaussian_noise(graph):
    assert certifier("smoothing", sigma=0.5) == certifier("smoothing", noise=Gaussian(0.5))
    found = certus.certify(graph, X, Y, certus.L2(0.3), method="smoothing", sigma=0.5, n=500)
    assert found.evidence[0]["noise"] == {"kind": "Gaussian", "sigma": 0.5}
    with pytest.raises(ArgumentError, match="not both"):
        certifier("smoothing", sigma=0.5, noise=Gaussian(0.5))
    with pytest.raises(ArgumentError, match="no option sigma"):
        certifier("crown", sigma=0.5)
