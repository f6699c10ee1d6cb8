"""Proofs below, counterexamples above: a crossing is named, chance is not mistaken for one."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tests.evaluation.fakes import Exact, Shift, fallen, job, row

from certus.certifiers import AttackCertifier
from certus.core import Answer, Certificates, ContradictionError, Reason, Verdict
from certus.core.claim import ATTACK, Claim, smoothed_by
from certus.core.kinds import text
from certus.evaluation import Ledger, check, evaluate
from certus.evaluation.sandwich import binomial_tail
from certus.smoothing import AnisotropicGaussian, Gaussian
from certus.threats import Linf

ONES = torch.ones(4)
WRONG = {"prediction": 0, "verdict": "falsified", "reason": "misclassified", "radius": 0.0}


@pytest.mark.parametrize(
    ("proof", "attack"),
    [
        (row(7), fallen(7)),
        (row(7, eps=0.2, radius=0.2), fallen(7)),
        (row(7, eps=None, radius=0.10001, method="lipschitz"), fallen(7)),
        (row(7), fallen(7, method="milp")),
        (row(7), row(7, method="pgd", eps=0.5, **WRONG)),
        (row(7), row(7, method="ibp", **(WRONG | {"verdict": "unknown"}))),
        (row(7, radius=0.0, eps=0.0), row(7, method="pgd", eps=0.5, **WRONG)),
        (row(7, method="smoothing"), fallen(7, method="smoothed-pgd")),
        (row(7, radius=float("nan")), fallen(7)),
    ],
)
def test_a_crossing_is_named(proof: dict, attack: dict) -> None:
    others = [row(i) for i in range(5)]
    with pytest.raises(ContradictionError) as caught:
        check([*others, attack, proof])
    said = str(caught.value)
    assert "model small, input 7 of tiny" in said and "\n" not in said
    assert proof["method"] in said and attack["method"] in said


def test_a_proof_for_the_wrong_class_is_a_contradiction() -> None:
    with pytest.raises(ContradictionError, match="input 3"):
        check([row(3, prediction=0)])


@pytest.mark.parametrize(
    ("proof", "attack"),
    [
        (row(7), fallen(7, eps=0.11)),
        (row(7), fallen(8)),
        (row(7), fallen(7, norm="l2")),
        (row(7), fallen(7, model="other")),
        (row(7), fallen(7, data="other")),
        (row(7), fallen(7, method="smoothed-pgd")),
        (row(7, method="smoothing", confidence=0.999), fallen(7)),
        (row(7, verdict="unknown", reason="loose", radius=0.5), fallen(7)),
        (row(7, eps=None, radius=0.09), fallen(7)),
    ],
)
def test_what_does_not_cross(proof: dict, attack: dict) -> None:
    check([proof, attack])


def threat(*clip: object) -> str:
    """The ball of the rows, cut to a clip."""
    return text({"kind": "linf", "eps": 0.1, "clip": clip[0]})


def narrow(sigma: float) -> str:
    return smoothed_by(Gaussian(sigma))


@pytest.mark.parametrize(
    ("changes", "crosses"),
    [
        ({}, True),
        ({"threat": threat([0.1, 0.9])}, True),
        ({"threat": threat([-1.0, 1.0])}, False),
        ({"threat": threat(None)}, False),
        ({"subject": narrow(0.25)}, False),
        ({"subject": text({"kind": "DoubleMasking"})}, False),
    ],
)
def test_rows_say_what_may_be_compared(changes: dict, crosses: bool) -> None:
    rows = [row(1, threat=threat([0.0, 1.0])), fallen(1) | changes]
    if crosses:
        with pytest.raises(ContradictionError):
            check(rows)
    else:
        assert check(rows).compared == 0


@pytest.mark.parametrize(
    ("proof", "attack", "crosses"),
    [
        (narrow(0.25), narrow(0.25), True),
        (narrow(0.25), narrow(0.5), False),
        (narrow(0.25), smoothed_by(None), True),  # of an older table, which does not say the noise
        (text({"kind": "DoubleMasking", "width": 2}), text({"kind": "DoubleMasking"}), False),
        (smoothed_by(AnisotropicGaussian(ONES)), smoothed_by(AnisotropicGaussian(ONES)), True),
        (smoothed_by(AnisotropicGaussian(ONES)), smoothed_by(AnisotropicGaussian(2 * ONES)), False),
    ],
)
def test_functions_made_of_one_network_are_compared_where_they_are_one(
    proof: str, attack: str, crosses: bool
) -> None:
    rows = [row(1) | {"subject": proof}, fallen(1) | {"subject": attack}]
    if crosses:
        with pytest.raises(ContradictionError):
            check(rows)
    else:
        assert check(rows).compared == 0


@pytest.mark.parametrize("changes", [{}, {"model_hash": "other"}, {"data_hash": "other"}])
def test_runs_say_which_weights_and_data_rows_are_about(changes: dict) -> None:
    rows = [row(1, run="a"), fallen(1, run="b")]
    told = {"model_hash": "m", "data_hash": "d"}
    runs = [{"run": "a"} | told, {"run": "b"} | told | changes]
    if changes:
        assert check(rows, runs).compared == 0
    else:
        with pytest.raises(ContradictionError):
            check(rows, runs)


def smooth(n: int, broken: int, confidence: float = 0.999) -> list:
    """n certificates of a smoothed classifier, all attacked, some of them with success."""
    proofs = [row(i, method="smoothing", confidence=confidence, eps=None) for i in range(n)]
    hit = [fallen(i, run="s", method="smoothed-pgd") for i in range(broken)]
    missed = {"method": "smoothed-pgd", "verdict": "unknown", "reason": "survived", "run": "s"}
    return proofs + hit + [row(i, **missed) for i in range(broken, n)]


@pytest.mark.parametrize(
    ("n", "broken", "raises"),
    [
        (100, 0, False),
        (100, 1, False),
        (100, 3, False),
        (100, 4, False),
        (100, 5, True),
        (1, 1, False),
    ],
)
def test_statistical_claims_may_fail_as_often_as_they_say(
    n: int, broken: int, raises: bool
) -> None:
    if raises:
        with pytest.raises(ContradictionError, match=f"{broken} of {n} certificates of smoothing"):
            check(smooth(n, broken))
        return
    (line,) = check(smooth(n, broken)).statistical
    assert (line.tested, line.broken, line.confidence) == (n, broken, pytest.approx(0.999))
    assert line.tail == pytest.approx(binomial_tail(broken, n, 0.001))


def test_attacks_outside_the_radius_do_not_dilute() -> None:
    far = [
        row(i, method="smoothed-pgd", eps=9.0, verdict="unknown", reason="survived")
        for i in range(5, 5000)
    ]
    proofs = [row(i, method="smoothing", confidence=0.999, eps=None) for i in range(100, 5000)]
    with pytest.raises(ContradictionError, match="5 of 5 "):
        check(smooth(5, 5) + proofs + far)


@pytest.mark.parametrize(
    ("k", "n", "p", "value"),
    [(0, 5, 0.1, 1.0), (5, 5, 0.1, 1e-5), (1, 2, 0.5, 0.75), (2, 3, 0.5, 0.5), (1, 3, 0.0, 0.0)],
)
def test_binomial_tail(k: int, n: int, p: float, value: float) -> None:
    assert binomial_tail(k, n, p) == pytest.approx(value)


def test_layers_count_each_kind() -> None:
    unsure = {"verdict": "unknown", "reason": "loose", "radius": 0.0}
    survived = {"method": "pgd", "verdict": "unknown", "reason": "survived", "radius": 0.0}
    rows = [row(0), row(1, **unsure), row(2, **unsure), row(3, **unsure), row(4, **WRONG)]
    rows += [row(0, method="milp"), row(1, method="milp"), row(2, method="milp", **unsure)]
    rows += [row(i, **survived) for i in (0, 1, 2)] + [fallen(3)]
    wide, shared = check(rows).layers
    assert (wide.certified, wide.exact, wide.attacked, wide.n) == (1, None, 3, 4)  # 0 to 3
    assert (shared.certified, shared.exact, shared.attacked, shared.n) == (1, 2, 3, 3)  # 0 to 2
    assert (wide.decided, shared.decided) == (2, 2)
    (alone,) = check(rows[:5]).layers
    assert (alone.certified, alone.exact, alone.attacked, alone.n) == (1, None, 4, 5)


def test_layers_of_methods_that_share_no_input_are_not_shown() -> None:
    survived = {"method": "pgd", "verdict": "unknown", "reason": "survived", "radius": 0.0}
    assert check([row(0), row(1, **survived)]).layers == ()
    assert [layer.n for layer in check([row(0), row(0, **survived)]).layers] == [1]


def test_layers_are_about_the_network() -> None:
    made = {"subject": text({"kind": "DoubleMasking"})}
    survived = row(1, method="pgd", verdict="unknown", reason="survived", radius=0.0)
    rows = [row(0), row(1, verdict="unknown", reason="loose", radius=0.0), row(1) | made]
    (layer,) = check([*rows, survived, survived | {"index": 0}]).layers
    assert (layer.certified, layer.n) == (1, 2)


@dataclass(frozen=True)
class Unchecked:
    """Rows of an attack that is believed whatever it says."""

    attack: Shift
    name: ClassVar[str] = "shift"
    gives_radius: ClassVar[bool] = False
    block: ClassVar[int] = 8

    def __call__(self, model, x, y, threat, ids=None, progress=None) -> Certificates:
        fell = {"verdict": Verdict.FALSIFIED, "reason": Reason.ATTACKED, "radius": 0.0}
        answers = [Answer(**fell, witness=p) for p in self.attack(model, x, y, threat).inputs]
        said = {"method": self.name, "threat": threat.describe(), "seconds": 0.1}
        return Certificates.of(answers, **said, prediction=model(x).argmax(1))

    def claim(self, threat: str) -> Claim:
        return Claim(kind=ATTACK, threat=threat, method=self.name, settings=text(self.attack))


@pytest.mark.parametrize("lie", [False, True])
def test_end_to_end(tmp_path: Path, lie: bool) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        for eps in (0.05, 0.1, 0.2):
            threat = Linf(eps, clip=None)
            evaluate(job(threat=threat), ledger)
            attacks = (Unchecked if lie else AttackCertifier)(attack=Shift(lie=lie))
            evaluate(job(threat=threat, certifier=attacks), ledger)
        evaluate(job(certifier=Exact(gives_radius=True, name="lipschitz")), ledger)
        rows, runs = ledger.rows(), ledger.runs()
    if lie:
        with pytest.raises(ContradictionError):
            check(rows, runs)
        return
    found = check(rows, runs)
    assert found.compared > 0
    for layer in found.layers:  # the method is exact and the attack is the best one
        assert layer.certified == layer.exact == layer.attacked
