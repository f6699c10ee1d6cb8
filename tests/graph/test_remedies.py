"""Inputs in another form than the module takes: the error says what to pass, and that works."""

import re

import pytest
import torch
from tests.laws.networks import Function
from torch import nn

from certus.api import bounds
from certus.core import CertusError
from certus.graph import trace
from certus.graph.remedies import REMEDIES
from certus.threats import Linf


def images(channels=3, size=8):
    layers = [nn.Conv2d(channels, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * (size - 2) ** 2, 3)]
    return nn.Sequential(*layers).eval()


def sequences():
    return nn.Sequential(nn.Conv1d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()


def rows():
    return nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


# module, the input as it was given, the words, and the input that they ask for (None: there is none)
CASES = {
    "double": (rows, torch.rand(2, 12).double(), "pass x.to(torch.float32)", lambda x: x.float()),
    "half": (rows, torch.rand(2, 12).half(), "pass x.to(torch.float32)", lambda x: x.float()),
    "double model": (
        lambda: rows().double(),
        torch.rand(2, 12),
        "pass x.to(torch.float64)",
        lambda x: x.double(),
    ),
    "double images": (images, torch.rand(2, 3, 8, 8).double(), "float32", lambda x: x.float()),
    "one image": (images, torch.rand(3, 8, 8), "x[None]", lambda x: x[None]),
    "one grey image": (lambda: images(1), torch.rand(1, 8, 8), "x[None]", lambda x: x[None]),
    "one double image": (
        images,
        torch.rand(3, 8, 8).double(),
        "x[None]",
        lambda x: x[None].float(),
    ),
    "channels last": (images, torch.rand(2, 8, 8, 3), "movedim(-1, 1)", lambda x: x.movedim(-1, 1)),
    "one, channels last": (
        images,
        torch.rand(8, 8, 3),
        "movedim(-1, 0)[None]",
        lambda x: x.movedim(-1, 0)[None],
    ),
    "time first": (sequences, torch.rand(2, 5, 3), "movedim(-1, 1)", lambda x: x.movedim(-1, 1)),
    "no channels": (
        lambda: images(1),
        torch.rand(2, 8, 8),
        "unsqueeze(1)",
        lambda x: x.unsqueeze(1),
    ),
    "images for rows": (rows, torch.rand(2, 3, 2, 2), "flatten(1)", lambda x: x.flatten(1)),
    "rows for images": (
        lambda: images(1),
        torch.rand(2, 64),
        "unflatten(1, (1, height, width))",
        lambda x: x.unflatten(1, (1, 8, 8)),
    ),
    "rows for colours": (
        images,
        torch.rand(2, 192),
        "unflatten(1, (3, height, width))",
        lambda x: x.unflatten(1, (3, 8, 8)),
    ),
    "tokens": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3)).eval(),
        torch.tensor([[1.0, 2.0]]),
        "whole numbers",
        None,
    ),
    "one at a time": (
        lambda: Function(lambda m, x: m.a(x.view(12)).view(1, 3), a=nn.Linear(12, 3)).eval(),
        torch.rand(2, 12),
        "runs on one input, and must on any number",
        None,
    ),
    "three at a time": (
        lambda: Function(lambda m, x: m.a(x.view(3, 12)), a=nn.Linear(12, 3)).eval(),
        torch.rand(3, 12),
        "runs on 3 inputs, and must on any number",
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_says_what_to_pass(name):
    make, x, words, change = CASES[name]
    module = make()
    for call in (lambda: trace(module, x), lambda: bounds(module, x, Linf(0.1, clip=None))):
        with pytest.raises(CertusError, match=re.escape(words)) as error:
            call()
        assert len(str(error.value)) <= 300 and "\n" not in str(error.value)
    if change is not None:
        assert bounds(module, change(x), Linf(0.1, clip=None)).lower.shape[1] == 3


def test_every_remedy_is_met():
    texts = []
    for make, x, *_ in CASES.values():
        with pytest.raises(CertusError) as error:
            trace(make(), x)
        texts.append(str(error.value))
    for one in REMEDIES:
        assert any(one.says.split("{")[0] in text for text in texts), one


def test_inputs_of_a_wrong_size_have_no_remedy():
    with pytest.raises(CertusError, match=r"in part '3': mat1 and mat2 shapes"):
        trace(images(), torch.rand(2, 3, 9, 9))
