"""Options of bound methods in certify, comparison of captures inside a domain, and short reprs."""

import torch
from torch import Tensor, nn

import certus


def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


def inputs() -> Tensor:
    return torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(0))


def test_certify_takes_the_options_of_a_bound_method():
    x, y = inputs(), module()(inputs()).argmax(1)
    for method, options in (
        ("alpha-crown", {"iterations": 3, "memory": 2**20}),
        ("ibp", {"rigorous": True}),
    ):
        plain = certus.certify(module(), x, y, certus.Linf(0.01), method=method)
        own = certus.certify(module(), x, y, certus.Linf(0.01), method=method, block=2, **options)
        assert own.verdict == plain.verdict
        assert bool((own.margin <= plain.margin + 1e-5).all())


def test_a_network_with_a_domain_is_compared_inside_it():
    layer = nn.Linear(3, 2)

    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return layer(x.log())

    x = torch.full((2, 3), 0.5)
    assert bool(torch.isfinite(certus.bounds(Logarithm().eval(), x, certus.Linf(0.1)).lower).all())


def test_graphs_and_problems_show_themselves_in_one_line():
    assert repr(certus.trace(module(), inputs())) == "Graph([2, 4] -> [3], 4 operations)"
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)\n(assert (and (<= X_0 1) (>= X_0 0) (>= Y_0 1)))"
    assert repr(certus.load_property(text)) == "Problem(inputs=1, outputs=1, cases=1)"
