"""The benchmark's formulas and its table, without measuring anything."""

from functools import lru_cache

import pytest
import torch
from tests.test_structure import ROOT
from torch import nn

import certus
from certus.bounding import AlphaCrown

BATCH, ROWS = 4, 2


@pytest.fixture
def bench(monkeypatch):
    """Its modules stand beside each other and are no package."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


def positive(net):
    """Weights and biases > 0, so that every value that can matter has a gradient."""
    for parameter in net.parameters():
        parameter.data = parameter.data.abs() + 0.1
    return net.eval()


@lru_cache
def small():
    """A 4-5-3-2 network and inputs."""
    torch.manual_seed(0)
    layers = (nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.rand(BATCH, 4)
    return certus.trace(nn.Sequential(*layers).eval(), x).resolved(), x


def case(method):
    """What is counted for the small network, and how many neurons of its second layer are undecided:

    by intervals from the first layer, and in the end.
    """
    from limits import multiply_adds

    graph, x = small()
    with torch.no_grad():
        state = method.prepare(graph, certus.Box(x - 0.5, x + 0.5))
    found = multiply_adds(method, graph, state, BATCH, ROWS)
    op, (low, high) = graph.nodes[3].op, state.intervals[2]
    middle, reach = (low + high) / 2 @ op.weight.T + op.bias, (high - low) / 2 @ op.weight.abs().T
    before = int(((middle - reach < 0) & (middle + reach > 0)).sum())
    low, high = state.intervals[3]
    return found, before, int(((low < 0) & (high > 0)).sum())


def test_counts_of_a_small_network(bench):
    """20, 15 and 6 products; a row of the second layer starts as a copy of its weights."""
    ranges, margins = 2 * BATCH * (20 + 15 + 6), BATCH * ROWS
    assert case(certus.IBP())[0] == ranges
    assert case(certus.crown_ibp())[0] == ranges + margins * (20 + 15 + 6)
    found, before, after = case(certus.Crown())
    assert before > after > 0
    assert found == ranges + margins * (20 + 15 + 6) + before * 2 * 20
    found, before, after = case(AlphaCrown(iterations=3, inner=2))
    spec = 4 * (20 + 15 + 6) + 3 * (20 + 15)
    assert before > after > 0
    assert found == ranges + margins * spec + before * 2 * 20 + after * 2 * (3 + 2) * 20


def test_windows_are_what_a_gradient_reaches(bench):
    """Products of a row from one neuron: values with a gradient times the weights that they meet."""
    from limits import price

    convolutions = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3, stride=2), nn.Conv2d(3, 2, (3, 2))
    first, second, third = positive(nn.ModuleList(convolutions))
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third).eval()
    x = torch.rand(1, 1, 31, 31)
    graph = certus.trace(net, x).resolved()
    inner = first(x)
    middle = second(inner.relu())
    inner.retain_grad()
    middle.retain_grad()
    third(middle.relu())[0, 0, 5, 5].backward()
    counted = [int((v.grad != 0).sum()) for v in (middle, inner)]
    expected = counted[0] * second.weight[0].numel() + counted[1] * first.weight[0].numel()
    found = price(graph, graph.output, (1, 1))
    assert (found.first, found.rest) == (0, expected)
    whole = price(graph, graph.output, None)
    assert whole.first == third(middle).numel() * third.weight[0].numel()
    assert whole.rest == sum(
        v.numel() * w.weight[0].numel() for v, w in ((middle, second), (inner, first))
    )


def test_runs_of_parts_complete_one_table(bench, tmp_path):
    """Rows replace their own, others stay, in the order of networks; what stands around stays too."""
    from measure import Measured
    from table import Row, Table, rows_of

    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- bounds: begin -->\n| b | 1 | ibp | 7 |\n<!-- bounds: end -->\nafter"
    )
    setting = {"threads": 1, "keep_heap": False, "seconds": 1.0, "limit": 2.0}
    machine = {"processor": "p", "cores": 1, "torch": "t", "rates": {"matmul 8": 2.0}}

    def add(net, batch, seconds):
        ours = Measured([seconds], multiply_adds=1e6)
        table = Table(page, (["a", "b"], ["ibp"]), setting, machine)
        return table.add(Row(net, batch, "ibp", Measured(), ours, None, "now"))

    add("a", 32, 0.004)
    line = add("a", 1, 0.002)
    assert line.split("|")[4:9] == [
        " 2 ",
        "  ",
        "  ",
        " 1 ",
        " 2 ",
    ]  # 2e6 operations at 2e9 a second
    add("a", 32, 0.008)
    held = rows_of(page, "bounds")
    assert list(held) == [("a", "1", "ibp"), ("a", "32", "ibp"), ("b", "1", "ibp")]
    assert held["a", "32", "ibp"].split("|")[4] == " 8 " and "| 7 |" in held["b", "1", "ibp"]
    assert len({row.count("|") for row in held.values()}) == 1
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter")
