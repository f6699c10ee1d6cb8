"""A snapshot goes on only with the training that it is of; what cannot be told is refused."""

import copy
import functools
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import certus
from certus.core import ArgumentError, FileError
from certus.smoothing import Gaussian
from certus.training import Constant, Denoising, Loss, Plan, Snapshot, Standard, Value, train
from certus.training.identity import identity

PLAN = Plan(epochs=2, batch=16)
X = torch.rand(32, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 3


def twice(x):
    return 2 * x


def thrice(x):
    return 3 * x


@dataclass(frozen=True)
class Settings:
    table: torch.Tensor
    name: str = field(default="a", repr=False, compare=False)


class Held:
    scale = 1.0

    def __init__(self, **held):
        vars(self).update(held)

    def call(self, x):
        return x


class Scaled(Loss):
    """The mean of the logits times what `by` makes of them."""

    def __init__(self, by):
        self.by = by

    def __call__(self, graph, logits, x, y, moment):
        return Value(self.by(logits).mean())


class Counting(Standard):
    def __call__(self, graph, logits, x, y, moment):
        vars(self)["calls"] = vars(self).get("calls", 0) + 1
        return super().__call__(graph, logits, x, y, moment)


def network(activation=nn.ReLU, frozen=False, **settings):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 6), activation(**settings), nn.Linear(6, 6)).eval()
    module[0].requires_grad_(not frozen)
    return module


def changed(module, change):
    change(module)
    return module


def hook(module):
    module[0].weight.register_hook(twice)


def nudge(module):
    with torch.no_grad():
        module[2].weight[3, 3] += 1e-6


LONG = torch.arange(4000.0)
OTHER = LONG.index_fill(0, torch.tensor([2000]), -1.0)  # where repr elides
NOISE = Gaussian(0.1)


@pytest.mark.parametrize(
    ("a", "b"),
    {
        "element of a long tensor": (LONG, OTHER),
        "dtype": (LONG, LONG.double()),
        "sign of zero": (torch.zeros(1), -torch.zeros(1)),
        "shape": (LONG, LONG.view(2, -1)),
        "what trains": (LONG, nn.Parameter(LONG)),
        "long array": (LONG.numpy(), OTHER.numpy()),
        "nested dataclass": (Held(a=[Settings(LONG)]), Held(a=[Settings(OTHER)])),
        "field outside repr": (Settings(LONG), replace(Settings(LONG), name="b")),
        "attribute": (Held(a=1), Held(a=2)),
        "function": (twice, thrice),
        "method of another object": (Held(a=1).call, Held(a=2).call),
        "partial": (functools.partial(twice, 1), functools.partial(twice, 2)),
        "nesting": ((1, (2, 3)), ((1, 2), 3)),
        "order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        "class": (nn.ReLU, nn.Tanh),
        "layer": (network(), network(nn.Tanh)),
        "slope": (network(nn.LeakyReLU), network(nn.LeakyReLU, negative_slope=0.3)),
        "frozen": (network(), network(frozen=True)),
        "weight": (network(), changed(network(), nudge)),
        "mode": (network(), network().train()),
        "gradient hook": (network(), changed(network(), hook)),
        "classifier": (Denoising(noise=NOISE, classifier=network()), Denoising(noise=NOISE)),
    }.values(),
)
def test_identity_tells_apart(a, b):
    assert identity(a, "it") == identity(copy.deepcopy(a), "it")
    assert identity(a, "it") != identity(b, "it")


def inner(n):
    def function(x):
        return n * x

    return function


@pytest.mark.parametrize(
    "value",
    [
        lambda x: x, inner(2), (i for i in range(3)), threading.Lock(), sys.stdout, object(), sys,
        re.compile("a"), np.array([object()]), functools.partial(lambda x: x, 1),
        Held(a=lambda x: x), [{"deep": Held(b=inner(1))}], iter([1]),
    ],
)  # fmt: skip
def test_what_has_no_identity_is_refused_by_name(value):
    with pytest.raises(ArgumentError, match=r"whether it[\w.\[\]']* is the same in another run"):
        identity(value, "it")


def test_identity_is_the_same_in_another_process(tmp_path):
    program = (
        "import torch; from torch import nn; from certus.training import *\n"
        "from certus.training.identity import identity; from certus.smoothing import Gaussian\n"
        "torch.manual_seed(0); f = nn.Sequential(nn.Linear(4, 3)).eval()\n"
        "held = [{'b', 'c', 'dd', 3}, Denoising(noise=Gaussian(.1), classifier=f), torch.relu]\n"
        "print(identity([held, Plan(epochs=1, batch=2)], 'it'))"
    )
    source = str(Path(certus.__file__).resolve().parents[1])
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONPATH": source, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(found) == 1


class StopError(Exception):
    """The end of the first process."""


def interrupt(done, total, note=""):
    raise StopError


DENOISE = Denoising(noise=NOISE, classifier=network())


@pytest.mark.parametrize(
    ("module", "loss", "word"),
    [
        (network(nn.Tanh), DENOISE, "the model"),
        (network(frozen=True), DENOISE, "the model"),
        (network(), Denoising(noise=NOISE, classifier=changed(network(), nudge)), "the loss"),
        (network(), Denoising(noise=NOISE), "the loss"),
        (network(), replace(DENOISE, weight=2.0), "the loss"),
    ],
)
def test_a_snapshot_names_what_differs(tmp_path, module, loss, word):
    snapshot = Snapshot(tmp_path / "a.safetensors")
    with pytest.raises(StopError):
        train(network(), X, Y, DENOISE, PLAN, interrupt, snapshot)
    with pytest.raises(FileError, match=rf"another training \(other: {word}\)"):
        train(copy.deepcopy(module), X, Y, loss, PLAN, snapshot=snapshot)
    for x, plan, other in ((X / 2, PLAN, "data"), (X, replace(PLAN, rate=Constant(0.1)), "plan")):
        with pytest.raises(FileError, match=f"the {other}"):
            train(network(), x, Y, DENOISE, plan, snapshot=snapshot)
    assert len(train(network(), X, Y, DENOISE, PLAN, snapshot=snapshot).epochs) == 2


def test_a_loss_without_identity_is_refused_only_with_a_snapshot(tmp_path):
    snapshot = Snapshot(tmp_path / "folder" / "a.safetensors")
    with pytest.raises(ArgumentError, match=r"the loss\.by"):
        train(network(), X, Y, Scaled(lambda z: z), PLAN, snapshot=snapshot)
    assert not snapshot.path.parent.exists()
    train(network(), X, Y, Scaled(lambda z: z), PLAN)
    train(network(), X, Y, Scaled(twice), PLAN, snapshot=snapshot)
    with pytest.raises(FileError, match="the loss"):
        train(network(), X, Y, Scaled(thrice), PLAN, snapshot=snapshot)


def test_a_loss_whose_state_a_snapshot_would_lose_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="keeps state"):
        train(network(), X, Y, Counting(), PLAN, snapshot=Snapshot(tmp_path / "a.safetensors"))
