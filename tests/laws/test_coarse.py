"""Numeric laws hold on the coarsest CPU that tolerances allow for: none rests on the last digits of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.laws.tolerance import evaluation_error, perturbed

from certus.graph.affine import Linear
from certus.graph.gated import Gelu

ROOT = Path(__file__).resolve().parents[2]
LAWS = (
    "tests/bounding/test_bound_laws.py",
    "tests/bounding/test_forward.py",
    "tests/bounding/test_zonotope.py",
    "tests/bounding/test_sdp_crown.py",
    "tests/bounding/test_dual.py",
    "tests/graph/test_composite.py",
    "tests/graph/test_unary.py",
    "tests/relax",
    "tests/verifiers/test_lp.py",
)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_laws_hold_on_the_coarsest_cpu(law):
    real = ["-k", "not no_kernel"]  # that measures this CPU, whose own error comes on top
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--coarse",
        *real,
        law,
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_evaluation_is_off_by_what_is_allowed_up_or_down(dtype):
    x = torch.linspace(-5, 5, 400, dtype=dtype)[:, None]
    for op in (Gelu(), Linear(torch.tensor([[1.5], [-0.3]], dtype=dtype))):
        plain = op.forward(x)
        with perturbed(), perturbed():
            moved = op.forward(x) - plain
        assert torch.equal(op.forward(x), plain)
        allowed = evaluation_error(op, x, plain)
        assert bool((moved.abs() <= allowed).all()) and bool((moved > allowed / 2).any())
        assert bool((moved < -allowed / 2).any())
