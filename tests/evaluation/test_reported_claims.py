"""Mistakes 9 and 10 of what is often taught: figures without their terms, and proof by attack."""

import pytest

from certus.certifiers import certifier
from certus.core.kinds import parsed, text
from certus.evaluation import check, curve, summary
from certus.evaluation.legacy import completed
from certus.smoothing import Gaussian

RUN = {"model": "net", "data": "digits", "norm": "l2", "card": "{}"}


def row(index, **values):
    known = {
        "run": "a",
        "model": "net",
        "data": "digits",
        "index": index,
        "label": 1,
        "prediction": 1,
        "verdict": "unknown",
        "reason": "loose",
        "radius": 0.0,
        "margin": float("nan"),
        "method": "crown",
        "norm": "l2",
        "eps": 0.5,
        "confidence": 1.0,
        "seconds": 0.01,
    }
    return completed([known | values])[0]


def proof(index, **values):
    return row(index, verdict="verified", reason="", radius=0.5, **values)


def test_a_certified_accuracy_carries_what_it_depends_on():
    """Mistake 9: "80% certified" alone does not tell 8 of 10 inputs from 320 of 400."""
    few = [proof(i) if i < 8 else row(i) for i in range(10)]
    many = [proof(i) if i < 320 else row(i) for i in range(400)]
    bare = [curve(rows, [0.5]).accuracy[0] for rows in (few, many)]
    assert bare[0] == bare[1] == pytest.approx(0.8), "the bare figure hides the difference"
    lines = [summary(rows)[0] for rows in (few, many)]
    assert lines[0]["low"] < 0.5 and lines[1]["low"] > 0.75
    assert [line["n"] for line in lines] == [10, 400] and lines[0]["eps"] == 0.5

    settings = text(certifier("smoothing", noise=Gaussian(0.5), n=777, alpha=0.01, seed=3))
    claim = proof(0, method="smoothing", eps=None, confidence=0.99)
    line = summary([claim], [RUN | {"run": "a", "settings": settings}], grid=[0.25])[0]
    assert line["confidence"] == 0.99
    told = parsed(line["settings"])
    assert told["noise"]["sigma"] == 0.5
    assert (told["n"], told["alpha"], told["seed"]) == (777, 0.01, 3)


def test_surviving_an_attack_certifies_nothing_and_smoothing_only_its_own_classifier():
    """Mistake 10: an adversarially trained model is not certified because attacks on it fail."""
    survived = [row(i, method="pgd", reason="survived") for i in range(20)]
    robust_to_the_attack = sum(r["verdict"] != "falsified" for r in survived) / 20
    assert robust_to_the_attack == 1.0, "the mistaken reading: all of them certified"
    assert curve(survived, [0.0, 0.5]).accuracy == (0.0, 0.0)

    smoothed = proof(0, run="s", method="smoothing", eps=None, confidence=0.999)
    broken = row(0, run="p", method="pgd", verdict="falsified", reason="attacked", eps=0.3)
    assert check([smoothed, broken]).compared == 0, "an attack on the network says nothing of g"
    with pytest.raises(Exception, match="net"):
        check([proof(0, run="c"), broken])  # the same radius as a proof about the network
