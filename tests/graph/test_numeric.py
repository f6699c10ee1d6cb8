"""Uses of remainders, steps, sums by index and complex numbers without a rule are refused in one line."""

import pytest
import torch
from tests.laws.networks import Function

from certus.core import CertusError
from certus.graph import trace

REFUSED = {
    "remainder": (lambda x: x % (1 + x * x), "depends on the input"),
    "remainder-zero": (lambda x: x.fmod(0.0), "division by zero"),
    "step-value": (lambda x: torch.heaviside(x, x * x), "value at zero"),
    "many-distances": (
        lambda x: torch.cdist(x[:, :, None], torch.ones(1, 30, 1)),
        "matrix products",
    ),
    "angle": (lambda x: torch.fft.fft(x).angle(), "angle"),
    "complex-sine": (lambda x: torch.fft.fft(x).sin().real, "on complex numbers"),
    "long-transform": (lambda x: torch.fft.rfft(x, n=6000).abs(), "shorter ones"),
    "batch-transform": (lambda x: torch.fft.fft(x, dim=0).real, "batch"),
    "scatter-batch": (lambda x: x.index_add(0, torch.tensor([0, 0]), x[:2]), "batch"),
    "scatter-one-row": (lambda x: x.scatter_add(1, torch.zeros(1, 4).long(), x), "batch"),
    "scatter-product": (
        lambda x: x.scatter_reduce(1, torch.zeros(1, 4).long().expand(x.shape[0], 4), x, "prod"),
        "joined by prod",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_rule_is_refused_in_one_line(case):
    body, words = REFUSED[case]
    with pytest.raises(CertusError, match=words) as error:
        trace(Function(lambda m, x: body(x)).eval(), torch.rand(2, 4))
    assert "\n" not in str(error.value)
