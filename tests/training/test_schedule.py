"""Schedules: ends, order and refusals."""

import math

import pytest

from certus.core import ArgumentError
from certus.training import Constant, Cosine, Plan, Ramp, StepDecay

TIMES = [i / 100 for i in range(101)]


@pytest.mark.parametrize("smooth", [False, True])
def test_a_ramp_warms_up_rises_and_holds(smooth):
    ramp = Ramp(low=0.0, high=0.1, begin=0.2, end=0.7, smooth=smooth)
    values = [ramp(t) for t in TIMES]
    assert values == sorted(values)
    assert {ramp(t) for t in (0.0, 0.1, 0.2)} == {0.0}
    assert {ramp(t) for t in (0.7, 0.9, 1.0)} == {0.1}
    assert ramp(0.45) == pytest.approx(0.05)
    assert (ramp(0.3) < 0.0199) == smooth


def test_a_ramp_may_fall():
    ramp = Ramp(low=1.0, high=0.5, begin=0.0, end=1.0)
    assert [ramp(t) for t in (0.0, 0.5, 1.0)] == [1.0, 0.75, 0.5]


def test_rates_fall():
    step = StepDecay(rate=1.0, at=(0.5, 0.75), factor=0.1)
    assert [step(t) for t in (0.0, 0.49, 0.5, 0.8)] == pytest.approx([1.0, 1.0, 0.1, 0.01])
    cosine = Cosine(rate=1.0, last=0.1, begin=0.5)
    values = [cosine(t) for t in TIMES]
    assert values == sorted(values, reverse=True)
    assert (values[50], values[75], values[-1]) == pytest.approx((1.0, 0.55, 0.1))
    assert Constant(0.3)(0.7) == 0.3


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ramp(low=0.0, high=1.0, begin=0.5, end=0.5),
        lambda: Ramp(low=0.0, high=float("nan")),
        lambda: StepDecay(rate=0.0),
        lambda: Cosine(rate=1.0, begin=1.0),
    ],
)
def test_refusals(make):
    with pytest.raises(ArgumentError):
        make()


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("rate", 1e-3, r"schedule such as Constant"),
        ("eps", Constant, "schedule such as"),
        ("rate", Constant(-1e-3), "rate must be in"),
        ("rate", Constant(1e39), "rate must be in"),
        ("eps", Ramp(low=0.1, high=-0.1), "eps must be a finite number >= 0"),
        ("kappa", Constant(1.01), r"kappa must be in \[0, 1\]"),
        ("beta", Ramp(low=2.0, high=0.0), r"beta must be in \[0, 1\] at all times, got 2"),
        ("beta", lambda time: math.nan, "got nan at 0"),
        ("eps", lambda time: None, "got None"),
        ("eps", lambda: 0.1, "cannot be called with a time"),
        ("momentum", 1.5, "momentum"),
        ("clip", None, "clip"),
        ("clip", (0.0, math.nan), "clip"),
        ("batch", 1, "batch"),
        ("epochs", 0, "epochs"),
    ],
)
def test_a_plan_refuses_what_lies_outside_its_range(name, value, word):
    with pytest.raises(ArgumentError, match=word):
        Plan(**{"epochs": 1, "batch": 2} | {name: value})


@pytest.mark.parametrize("value", ["a", None, True, math.inf])
def test_a_schedule_of_something_else_than_numbers(value):
    for make in (
        lambda: Constant(value),
        lambda: Ramp(low=0.0, high=value),
        lambda: StepDecay(rate=value),
        lambda: StepDecay(rate=0.1, at=0.5),
        lambda: Cosine(rate=value),
    ):
        with pytest.raises(ArgumentError):
            make()
