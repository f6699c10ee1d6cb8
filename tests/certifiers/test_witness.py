"""A witness lies in what the user wrote, and fools the original alone and beside others."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from certus.api import attack, certify
from certus.attacks import PGD
from certus.certifiers import AttackCertifier, AutoCertifier, Certifier, SmoothedAttackCertifier
from certus.certifiers.base import Answer, Query
from certus.core import ModelError, Reason, Verdict
from certus.graph import Graph, trace
from certus.properties import load_property
from certus.smoothing import Gaussian
from certus.threats import L2, Box, Linf


class Steep(nn.Module):
    """The sign of the first value less a limit, so steep that one unit in the last place decides."""

    def __init__(self, limit: float, sign: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[sign * 1e9, 0.0]]))
        self.limit = nn.Parameter(torch.tensor([limit, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        z = (x - self.limit) @ self.weight.T
        return torch.cat([z + 1.0, torch.zeros_like(z)], 1)


METHODS = ["auto", "milp"]


def limits(number, other):
    return tuple(torch.tensor([row], dtype=torch.float64) for row in ((number, 0.0), (other, 1.0)))


def exact(number: float) -> Fraction:
    return Fraction(number)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("edge", "sign"), [(0.7, 1.0), (0.3, -1.0)])
def test_a_point_that_rounding_alone_lets_in_is_no_counterexample(edge, sign, method):
    """The model is wrong only beyond the edge; float32 has no number between there and the edge itself."""
    near = torch.tensor(edge, dtype=torch.float64).float()
    outside = sign * (float(near) - edge) < 0  # the nearest float32 lies beyond the edge
    beyond = float(near) if outside else float(torch.nextafter(near, torch.tensor(-sign * 9)))
    model = Steep(beyond, sign).eval()
    with torch.no_grad():
        model.limit[0] = torch.nextafter(torch.tensor(beyond), torch.tensor(sign * 9))
    x = torch.tensor([[edge + sign * 0.2, 0.5]])
    low, high = limits(edge, edge + 0.25) if sign > 0 else limits(edge - 0.25, edge)
    y = model(x).argmax(1)
    assert y.item() == 0 and model(torch.tensor([[beyond, 0.5]])).argmax(1).item() == 1
    graph = trace(model, x)
    found = certify(graph, x, y, Box(low, high), method=method)
    assert found.verdict[0] is Verdict.UNKNOWN and found.witness[0] is None
    broken = attack(model, x, y, Box(low, high))
    assert not bool(broken.success) and bool((broken.inputs.double() >= low).all())
    one_more = Box(low - (sign > 0) * 1e-6, high + (sign < 0) * 1e-6)
    assert bool(attack(model, x, y, one_more).success)
    assert certify(graph, x, y, one_more).verdict[0] is Verdict.FALSIFIED


class Threshold(nn.Module):
    """Class 1 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([0 * x[:, :1], 0 * x[:, :1] + 1], 1)


@pytest.mark.parametrize("method", ["auto", "milp", "crown", "lipschitz"])
def test_a_box_without_members_is_never_falsified(method):
    """The clean input is wrong, but only rounding brought it into the box."""
    limit = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    x = limit.float()
    model = nn.Sequential(Threshold(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
        model[1].bias.zero_()
    model = trace(model, x)
    for y, verdict in ((0, Verdict.UNKNOWN), (1, Verdict.VERIFIED)):
        found = certify(model, x, torch.tensor([y]), Box(limit, limit), method=method)
        assert found.verdict[0] is verdict and found.witness[0] is None
        runs = AttackCertifier(attack=PGD(steps=2))(model, x, torch.tensor([y]), Box(limit, limit))
        assert runs.verdict[0] is Verdict.UNKNOWN and runs.reason[0] is Reason.SURVIVED
        assert not bool(attack(model, x, torch.tensor([y]), Box(limit, limit)).success)


def test_a_property_box_judges_as_it_was_written():
    text = """
    (declare-const X_0 Real) (declare-const Y_0 Real)
    (assert (>= X_0 0.1)) (assert (<= X_0 0.7)) (assert (>= Y_0 0))
    """
    region = load_property(text).cases[0].region((1,), torch.float32)
    ends = torch.cat([region.lower, region.upper])
    assert exact(float(ends[0])) < exact(0.1) and exact(0.7) < exact(float(ends[1]))
    assert not bool(region.contains(ends[:1])) and not bool(region.contains(ends[1:]))
    inner = torch.cat([region.project(ends[:1]), region.project(ends[1:])])
    assert bool(region.contains(inner[:1])) and bool(region.contains(inner[1:]))
    whole = load_property(text).region((1,), torch.float32)
    assert not bool(whole.contains(ends[:1])) and bool(whole.contains(inner[1:]))


@pytest.mark.parametrize("clip", [(-0.42421296, 2.8214867), (0.1, 0.7)])
@pytest.mark.parametrize("threat", [Linf, L2])
def test_inputs_on_a_rounded_limit_are_attacked_inside(threat, clip):
    """Black and white pixels lie an ulp off a clip range that float32 does not hold."""
    x = torch.tensor([[clip[0], clip[1], sum(clip) / 2]])
    region = threat(0.2, clip).region(x)
    model = nn.Linear(3, 2).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, -5.0], [0.0, 0.0, 5.0]]))
        model.bias.copy_(torch.tensor([1.0, -1.0]) * (5 * float(x[0, 2]) + 0.25))
    found = attack(model, x, torch.tensor([0]), threat(0.2, clip))
    assert bool(found.success) and bool(region.contains(found.inputs))
    values = [exact(v) for v in found.inputs[0].tolist()]
    assert all(exact(clip[0]) <= v <= exact(clip[1]) for v in values)


@dataclass(frozen=True, kw_only=True)
class Claims(Certifier):
    """Hands over witnesses."""

    name: ClassVar[str] = "claims"
    gives_radius: ClassVar[bool] = False
    points: Tensor

    def run(self, query: Query) -> list[Answer]:
        return [
            Answer(
                verdict=Verdict.FALSIFIED, reason=Reason.ATTACKED, radius=0.0, witness=p, margin=0.5
            )
            for p in self.points
        ]


def graph_of(original):
    """A graph of z = (2 x_0, 2 x_1) whose witnesses are replayed on something else."""
    layer = nn.Linear(2, 2, bias=False).eval()
    with torch.no_grad():
        layer.weight.copy_(2 * torch.eye(2))
    traced = trace(layer, torch.zeros(1, 2))
    return Graph(traced.nodes, traced.output, original)


def test_witnesses_are_replayed_together_and_one_by_one():
    x = torch.tensor([[0.5, 0.4]]).repeat(3, 1)
    points = torch.tensor([[0.4, 0.5], [0.45, 0.45], [0.5, 0.45]])
    y = torch.zeros(3, dtype=torch.int64)
    found = Claims(points=points)(graph_of(lambda x: 2 * x), x, y, Linf(0.2))
    assert [v is Verdict.FALSIFIED for v in found.verdict] == [True, True, False]
    assert found.reason[2] is Reason.LOOSE and found.margin.tolist() == [0.5] * 3

    def shy(x):  # right about every point that comes by itself
        other = torch.tensor([[1.0, 0.8]]).repeat(len(x), 1)
        return other if len(x) == 1 else 2 * x

    found = Claims(points=points)(graph_of(shy), x, y, Linf(0.2))
    assert Verdict.FALSIFIED not in found.verdict

    def drawn(x):
        clean = (x - torch.tensor([0.5, 0.4])).abs().amax() < 0.05
        ends = (x[:, 0] - x[:, 1] - 0.1).abs().amax() < 1e-3  # the corners of the first region
        return 2 * x + (0 if clean or ends else 1) * torch.rand(len(x), 2)

    with pytest.raises(ModelError, match="deterministic"):
        Claims(points=points)(graph_of(drawn), x, y, Linf(0.2))


def test_an_original_of_its_own_is_compared_at_corners():
    """A graph that nobody captured: a difference away from the input is seen within the region."""
    x, y = torch.tensor([[0.5, 0.4]]), torch.zeros(1, dtype=torch.int64)
    graph = graph_of(lambda x: (2 * x).clamp(max=1.1))
    assert certify(graph, x, y, Linf(0.04), method="ibp").verdict[0] is Verdict.VERIFIED
    with pytest.raises(ModelError, match="changed"):
        certify(graph, x, y, Linf(0.2), method="ibp")


def test_smoothed_attacks_judge_members_alone():
    """A clean input off its box is no witness, whatever the smoothed classifier says there."""
    limit = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    graph = graph_of(lambda x: 2 * x)
    x, y = limit.float(), torch.zeros(1, dtype=torch.int64)
    method = SmoothedAttackCertifier(noise=Gaussian(0.1), samples=4, n=200)
    assert method(graph, x, y, Box(limit, limit)).verdict[0] is Verdict.UNKNOWN
    assert method(graph, x, y, L2(0.1)).verdict[0] is Verdict.FALSIFIED


def test_auto_searches_on_where_the_clean_input_is_no_member():
    low = torch.tensor([[0.2, 0.0]], dtype=torch.float64)
    high = torch.tensor([[0.6, 0.3]], dtype=torch.float64)
    x = torch.tensor([[0.5, 0.3]])  # the second value lies above its limit
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    found = AutoCertifier()(trace(model, x), x, torch.tensor([1]), Box(low, high))
    assert found.verdict[0] is Verdict.FALSIFIED and found.reason[0] is Reason.ATTACKED
    assert bool(Box(low, high, torch.float32).contains(found.witness[0][None]))
