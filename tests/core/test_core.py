"""Rules, results, numerics, randomness by key, fingerprints and checks at the edge."""

import pytest
import torch

from certus.core import (
    ArgumentError,
    Bounds,
    Certificates,
    CertusError,
    DependencyError,
    ModelError,
    Reason,
    Rules,
    UnsupportedError,
    Verdict,
    fingerprint,
    validate,
)
from certus.core.errors import require
from certus.core.numerics import guard, sound
from certus.core.random import derive, draw, generator, per_input


class Base: ...


class Leaf(Base): ...


def test_rules_take_the_nearest_base_and_miss_loudly():
    table = Rules("a table")
    table.register(Base)(lambda: "base")
    assert table[Leaf]() == "base" and Leaf in table and list(table) == [Base]
    near = table.extended("near", {Leaf: lambda: "leaf"})
    assert near[Leaf]() == "leaf" and table[Leaf]() == "base"
    with pytest.raises(ValueError, match="already has a rule for Base"):
        table.register(Base)(lambda: None)
    with pytest.raises(UnsupportedError, match=r"a table has no rule for int \(it has: Base\)"):
        _ = table[int]
    assert int not in table


def record(**changes):
    fields = {
        "prediction": torch.tensor([1, 2]),
        "verdict": [Verdict.VERIFIED, Verdict.UNKNOWN],
        "reason": [None, Reason.LOOSE],
        "radius": torch.tensor([0.1, 0.0]),
        "margin": torch.tensor([0.5, -0.5]),
        "method": "crown",
        "threat": "linf:0.1",
        "seconds": torch.zeros(2),
        "witness": [None, None],
    }
    return Certificates(**(fields | changes))


def test_certificates_refuse_contradictions():
    found = record()
    assert found.certified.tolist() == [True, False] and len(found) == 2
    assert found.to_rows()[1]["reason"] == "loose" and found.to_rows()[0]["verdict"] == "verified"
    with pytest.raises(ArgumentError, match="witness"):
        record(verdict=[Verdict.VERIFIED, Verdict.FALSIFIED])
    with pytest.raises(ArgumentError, match="reason"):
        record(reason=[Reason.LOOSE, Reason.LOOSE])
    with pytest.raises(ArgumentError, match="reason"):
        record(reason=[None, None])
    with pytest.raises(ArgumentError, match="one entry per input"):
        record(radius=torch.zeros(3))


def test_sound_refuses_nan_infinite_and_crossed_bounds():
    nan, inf = float("nan"), float("inf")
    lower = torch.tensor([0.0, nan, 0.0, -inf, 1.0, 1.0, 0.0, inf])
    upper = torch.tensor([1.0, 1.0, nan, 1.0, 0.0, 1.0 - 1e-7, inf, inf])
    assert sound(lower, upper).tolist() == [True, False, False, False, False, True, False, False]
    assert Bounds(lower, upper).width[0] == 1.0
    assert float(guard(torch.tensor(0.0))) > 0
    assert float(guard(torch.tensor(1e6))) > 1e5 * float(guard(torch.tensor(1.0)))
    assert float(guard(torch.tensor(1.0).double())) < 1e-12


def test_draws_depend_on_seed_and_id_alone():
    like = torch.zeros(3, 4)
    whole = draw(torch.randn, like, per_input(7, [5, 6, 9]))
    part = draw(torch.randn, like[:2], per_input(7, [9, 5]))
    assert torch.equal(part, whole[[2, 0]])
    assert not torch.equal(whole, draw(torch.randn, like, per_input(8, [5, 6, 9])))
    assert not torch.equal(whole[0], whole[1])
    assert len({derive(s, k) for s in range(30) for k in range(30)}) == 900
    assert 0 <= derive(0) < 2**63
    assert generator(1, 2).initial_seed() == derive(1, 2) != derive(2, 1)


def test_fingerprints_see_names_values_shapes_and_dtypes():
    x = torch.arange(6.0)
    prints = {
        fingerprint([("a", x)]),
        fingerprint([("b", x)]),
        fingerprint([("a", x + 1)]),
        fingerprint([("a", x.view(2, 3))]),
        fingerprint([("a", x.double())]),
    }
    assert len(prints) == 5
    assert fingerprint([("a", x), ("b", x + 1)]) == fingerprint([("b", x + 1), ("a", x)])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: validate.inputs([1.0]), ArgumentError),
        (lambda: validate.inputs(torch.zeros(2, 3, dtype=torch.int64)), ArgumentError),
        (lambda: validate.inputs(torch.zeros(3)), ArgumentError),
        (lambda: validate.inputs(torch.zeros(0, 3)), ArgumentError),
        (lambda: validate.inputs(torch.zeros(2, 3), (4,)), ArgumentError),
        (lambda: validate.inputs(torch.tensor([[float("nan")]])), ArgumentError),
        (lambda: validate.labels(torch.tensor([0.0]), 1, 3), ArgumentError),
        (lambda: validate.labels(torch.tensor([True]), 1, 3), ArgumentError),
        (lambda: validate.labels(torch.tensor([3]), 1, 3), ArgumentError),
        (lambda: validate.labels(torch.tensor([-1]), 1, 3), ArgumentError),
        (lambda: validate.labels(torch.tensor([0, 1]), 1, 3), ArgumentError),
        (lambda: validate.logits((1, 2), 2), ModelError),
        (lambda: validate.logits(torch.zeros(2, 1), 2), ModelError),
        (lambda: validate.logits(torch.full((2, 3), float("inf")), 2), ModelError),
        (lambda: validate.positive(0.0, "eps"), ArgumentError),
        (lambda: validate.positive(float("nan"), "eps"), ArgumentError),
        (lambda: validate.count(True, "n"), ArgumentError),
        (lambda: validate.count(0, "n"), ArgumentError),
        (lambda: validate.probability(1.0, "alpha"), ArgumentError),
        (lambda: validate.probability(0.0, "alpha"), ArgumentError),
        (lambda: require("no_such_module_here", "report"), DependencyError),
    ],
)
def test_checks_at_the_edge_give_one_line(call, error):
    with pytest.raises(error) as found:
        call()
    assert isinstance(found.value, CertusError) and "\n" not in str(found.value)


def test_what_is_valid_passes():
    assert validate.inputs(torch.zeros(2, 3), (3,)).shape == (2, 3)
    assert validate.labels(torch.tensor([2], dtype=torch.int32), 1, 3).dtype == torch.int64
    assert validate.logits(torch.zeros(2, 2), 2).shape == (2, 2)
    assert validate.positive(2, "eps") == 2.0 and validate.count(1, "n") == 1
    assert validate.probability(0.5, "alpha") == 0.5
