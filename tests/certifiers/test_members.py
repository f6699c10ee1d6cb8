"""One family: models of any kind in, answers out, and a reason where a member cannot be asked."""

from dataclasses import dataclass, field

import pytest
import torch
from tests.certifiers.nets import digits, graph, inputs, net
from torch import Tensor, nn

import certus
from certus.attacks import FGSM, PGD
from certus.certifiers import ATTACKS, CERTIFIERS, AttackCertifier, certifier
from certus.certifiers.base import Certifier
from certus.certifiers.table import REFUTERS
from certus.core import (
    Answer,
    Certificates,
    Function,
    Model,
    Reason,
    UnsupportedError,
    Verdict,
    as_model,
)
from certus.core.claim import ATTACK
from certus.core.kinds import text
from certus.smoothing import Uniform
from certus.threats import L1, L2, Box, Linf, Patch

FAST = {"smoothing": {"n": 50, "n0": 5}, "smoothed-pgd": {"n": 50, "samples": 2}}
FAST |= {"milp": {"timeout": 1e-6}, "auto": {"timeout": 1e-6}, "lp": {"seconds": 1e-6}}


@pytest.mark.parametrize("name", [*CERTIFIERS, *REFUTERS])
def test_every_name_is_one_member_that_answers(name):
    x, y = inputs(3)
    member = certifier(name, **FAST.get(name, {}))
    assert isinstance(member, Certifier) and member.name == name and isinstance(member, Certifier)
    assert member.accepts(graph(), Linf(0.01) if name != "smoothing" else L2(0.01)) is None
    threat = L2(0.01) if name.startswith("smooth") else Linf(0.01)
    found = certus.certify(graph(), x, y, threat, member)
    assert found.method == name and len(found) == 3
    if name in REFUTERS:
        assert not bool(found.certified.any()) and member.kind == ATTACK
    told = text(threat.to_json())
    assert certifier(name).claim(told) != certifier(name, block=7).claim(told)
    assert found.subject == member.claim(told).subject


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_say_by_certify_what_they_find(name):
    x, y = inputs()
    found = certus.certify(graph(), x, y, Linf(0.1), name)
    plain = certus.attack(graph(), x, y, Linf(0.1), name)
    assert [v is Verdict.FALSIFIED for v in found.verdict] == plain.success.tolist()
    for b, reason in enumerate(found.reason):
        clean = int(net()(x[b : b + 1]).argmax(1)) != int(y[b])
        broken = Reason.MISCLASSIFIED if clean else Reason.ATTACKED
        assert reason is (broken if plain.success[b] else Reason.SURVIVED)
        assert not plain.success[b] or torch.equal(found.witness[b], plain.inputs[b])
    assert Reason.ATTACKED in found.reason and bool(found.margin.isnan().all())


@dataclass(frozen=True, eq=False)
class Stump:
    """A model of another kind: class 1 where a value exceeds 1/2, computed beside torch's layers."""

    calls: list[int] = field(default_factory=list)
    input_shape: tuple[int, ...] = (2,)
    dtype: torch.dtype = torch.float32

    @property
    def original(self):
        return self

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        score = (x[:, 0] - 0.5).unsqueeze(1)
        return torch.cat([-score, score], 1)

    def fingerprint(self) -> str:
        return "stump"


def test_other_kinds_of_models_stand_beside_graphs():
    assert isinstance(graph(), Model) and isinstance(Stump(), Model)
    assert not isinstance(net(), Model) and as_model(graph(), torch.rand(1, 64)) is graph()
    x, y = torch.tensor([[0.4, 0.0], [0.1, 0.0], [0.7, 0.0]]), torch.tensor([0, 0, 0])
    for model in (Stump(), Stump().__call__):
        for name in ("pgd", "fgsm"):
            found = certus.certify(model, x, y, Linf(0.2), name)
            assert found.reason == [Reason.ATTACKED, Reason.SURVIVED, Reason.MISCLASSIFIED]
        found = certus.certify(model, x, y, L2(0.2), "smoothing", sigma=0.1, n=500)
        assert found.certified.tolist() == [False, True, False]
        with pytest.raises(UnsupportedError, match="Graph") as said:
            certus.certify(model, x, y, Linf(0.2))
        assert "\n" not in str(said.value)


class Running(nn.Module):
    """A module that no graph is captured of."""

    def forward(self, x: Tensor) -> Tensor:
        score = torch.cummax(x.flatten(1), dim=1).values[:, -1:] - 0.7
        return torch.cat([-score, score], 1)


def test_what_cannot_be_captured_can_be_attacked_and_smoothed_all_the_same():
    x, y = torch.tensor([[0.1, 0.5, 0.9]]), torch.tensor([1])
    model = Running().eval()
    assert certus.certify(model, x, y, Linf(0.1), "pgd").verdict == [Verdict.UNKNOWN]
    assert certus.certify(model, x, y, Linf(0.3), "pgd").verdict == [Verdict.FALSIFIED]
    assert bool(certus.certify(model, x, y, L2(0.01), "smoothing", sigma=0.05, n=500).certified)
    g = certus.Smoothed(model, certus.Gaussian(0.05), 2)
    assert bool(certus.certify(g, x, y, L2(0.01), n=500).certified)
    for method in ("auto", "crown"):
        with pytest.raises(UnsupportedError, match="cummax"):
            certus.certify(model, x, y, Linf(0.1), method)


def tanh():
    torch.manual_seed(0)
    return certus.trace(
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).eval(), torch.rand(1, 2)
    )


def softmax():
    net = nn.Sequential(nn.Linear(2, 3), nn.Softmax(-1), nn.Linear(3, 2)).eval()
    return certus.trace(net, torch.rand(1, 2))


@pytest.mark.parametrize(
    ("name", "model", "threat", "reason"),
    [
        ("crown", Stump, Linf(0.1), "certus.Graph"),
        ("lipschitz", Stump, L2(0.1), "certus.Graph"),
        ("lipschitz", softmax, L2(0.1), "Softmax"),
        ("milp", tanh, L2(0.1), "box"),
        ("milp", tanh, Linf(0.1), "Tanh"),
        ("milp", Stump, Linf(0.1), "certus.Graph"),
        ("smoothing", Stump, Patch(1), "says nothing about patch"),
    ],
)
def test_a_reason_is_given_before_any_work(name, model, threat, reason):
    options = {"noise": Uniform(0.5)} if name == "smoothing" else {}
    model, member = model(), certifier(name, **options)
    said = member.accepts(model, threat)
    assert said is not None and reason in said and "\n" not in said
    x = torch.rand(2, 1, 2, 2) if isinstance(threat, Patch) else torch.rand(2, 2)
    if isinstance(model, Stump):
        object.__setattr__(model, "input_shape", tuple(x.shape[1:]))
        model.calls.clear()
    with pytest.raises(UnsupportedError) as caught:
        member(model, x, torch.zeros(2, dtype=torch.long), threat)
    assert str(caught.value) == said
    assert not isinstance(model, Stump) or not model.calls


def test_functions_have_a_shape_a_type_and_the_fingerprint_of_their_module():
    module = nn.Linear(2, 2).eval()
    one = as_model(module, torch.rand(3, 2))
    assert isinstance(one, Function) and one.input_shape == (2,) and one.dtype == torch.float32
    before = one.fingerprint()
    with torch.no_grad():
        module.weight += 1
    assert one.fingerprint() != before
    relu, tanh = (
        as_model(nn.Sequential(layer), torch.rand(1, 2)) for layer in (nn.ReLU(), nn.Tanh())
    )
    assert relu.fingerprint() != tanh.fingerprint()
    with pytest.raises(certus.ArgumentError, match="fingerprint"):
        as_model(torch.relu, torch.rand(1, 2)).fingerprint()
    with pytest.raises(certus.ModelError, match="int"):
        as_model(3, torch.rand(1, 2))
    with pytest.raises(certus.ArgumentError, match="the model computes in"):
        AttackCertifier(attack=FGSM())(
            module, torch.rand(1, 2).double(), torch.tensor([0]), L1(0.1)
        )


def test_records_come_apart_and_together_again():
    x, y = inputs(5)
    found = certus.certify(graph(), x, y, Linf(0.1), AttackCertifier(attack=PGD(steps=3)))
    again = Certificates.of(
        found.answers(), method=found.method, threat=found.threat, seconds=found.seconds
    )
    assert again.to_rows() == found.to_rows() or bool(found.margin.isnan().all())
    assert again.verdict == found.verdict and torch.equal(again.prediction, found.prediction)
    shared = Certificates.of(found.answers(), method="a", threat="b", seconds=10.0)
    assert shared.seconds.tolist() == [2.0] * 5


@dataclass(frozen=True, kw_only=True)
class Other(Certifier):
    """Claims about another classifier than the network, with a witness as far away as it was told."""

    name = "other"
    gives_radius = False
    move: float = 0.0

    def run(self, query):
        answer = {"verdict": Verdict.FALSIFIED, "reason": Reason.ATTACKED, "radius": 0.0}
        return [Answer(**answer, witness=x + self.move, prediction=0) for x in query.x]


@pytest.mark.parametrize("move", [0.0, 0.04, 0.06])
def test_witnesses_against_another_classifier_must_lie_in_the_region(move):
    x = digits().x_test[:4].clamp(0.1, 0.9)
    y = net()(x).argmax(1)
    found = Other(move=move)(graph(), x, y, Linf(0.05))
    kept = Verdict.FALSIFIED if move < 0.05 else Verdict.UNKNOWN
    assert found.verdict == [kept] * 4 and found.prediction.tolist() == [0] * 4


def test_a_box_is_a_threat_for_every_member():
    x, _ = inputs(3)
    box = Box(x - 0.01, x + 0.01)
    for name in ("ibp", "lipschitz", "pgd", "milp"):
        assert certifier(name).accepts(graph(), box) is None
