"""docs/operations.md is what the tables of rules say, and what it claims happens when it is tried."""

import pytest
import torch
from docs.tools.examples import example_of
from docs.tools.operations import PAGE, page
from docs.tools.support import COLUMNS, cells, operations, written_with

from certus.bounding import IBP, Crown, DeepZ, Forward
from certus.bounding.alphas import Alphas
from certus.bounding.backward import Walk
from certus.bounding.maps import Maps
from certus.certifiers.bound_methods import BOUNDS
from certus.core import CertusError, UnsupportedError
from certus.graph.activation import Relu, Tanh
from certus.graph.affine import Linear
from certus.graph.builders import BUILDERS
from certus.graph.op import Affine
from certus.lipschitz import lipschitz
from certus.verifiers import Milp

KINDS = {kind.__name__: kind for kind in operations()}
CLAIMS = {
    name: dict(zip(COLUMNS, cells(k, example_of(k)), strict=True)) for name, k in KINDS.items()
}
ROUNDING = 1e-9
every_operation = pytest.mark.parametrize("name", KINDS)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make operations`"


def test_names_tell_operations_apart_and_all_entries_are_explained():
    assert len(KINDS) == len(operations()) > 50
    legend = PAGE.read_text(encoding="utf-8").split("## Affine operations")[0]
    entries = {entry for claims in CLAIMS.values() for entry in claims.values()}
    assert not [entry for entry in entries if f"\n| {entry} |" not in legend]


def case(name):
    """Graph, box, members [P, n] and rows [R, outputs] of an example."""
    example = example_of(KINDS[name])
    assert type(example.op) is KINDS[name]
    graph, box = example.graph(), example.box()
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(200, box.lower.shape[1], generator=generator, dtype=torch.float64)
    u[100:] = u[100:].round()
    rows = torch.randn(4, *graph.output_shape, generator=generator, dtype=torch.float64)
    return graph, box, box.lower + u * (box.upper - box.lower), rows


def check(method, name, exact=False):
    """Functionals of members lie inside; where no loss is claimed, they nearly fill the bounds."""
    graph, box, members, rows = case(name)
    found = method(graph, box, rows.unsqueeze(0))
    values = graph(members) @ rows.T
    assert bool((values >= found.lower - ROUNDING).all() & (values <= found.upper + ROUNDING).all())
    assert bool(torch.isfinite(found.lower).all() & torch.isfinite(found.upper).all())
    if exact:
        assert torch.allclose(found.lower[0], least(graph, box, rows), atol=1e-9)
    return method.prepare(graph, box)


def least(graph, box, rows):
    """The minimum of an affine functional over a box, by its gradient."""
    x = box.center.clone().requires_grad_()
    values = (graph(x) @ rows.T)[0]
    slopes = [torch.autograd.grad(v, x, retain_graph=True)[0][0] for v in values]
    radius = (box.upper - box.lower)[0] / 2
    return values.detach() - torch.stack(slopes).abs() @ radius


@every_operation
def test_interval_bounds(name):
    assert CLAIMS[name]["ibp"] == "yes"
    check(IBP(), name)


@every_operation
@pytest.mark.parametrize("method", [DeepZ(), Forward()], ids=["zonotope", "forward"])
def test_forward_methods(name, method):
    claim = CLAIMS[name]["zonotope" if isinstance(method, DeepZ) else "forward"]
    form = check(method, name, claim == "exact").form
    part = form.inputs if isinstance(method, DeepZ) else form.below.slope
    assert {"exact": True, "relaxed": True, "interval": False}[claim] == (part is not None)


@every_operation
def test_backward_methods(name):
    claim = CLAIMS[name]["crown"]
    state = check(Crown(), name, claim == "exact")
    assert {"exact": 0, "relaxed": 1}[claim] == len(state.relaxations)


@pytest.mark.parametrize("name", [n for n, k in KINDS.items() if not issubclass(k, Affine)])
def test_methods_that_share_the_column(name):
    """The page says that what holds for CROWN holds for all of these."""
    for method in BOUNDS:
        if method not in ("ibp", "zonotope", "forward", "crown"):
            check(BOUNDS[method](), name)


@every_operation
def test_slopes_that_rows_choose(name):
    claim, alphas = CLAIMS[name]["alpha-crown"], Alphas()
    graph, box, _, rows = case(name)
    state = Crown().prepare(graph, box)
    Walk(state, both=True, alphas=alphas).run(graph.output, Maps(rows.unsqueeze(1)))
    assert (claim == "own slopes") == bool(alphas.values)
    assert claim == "own slopes" or claim == CLAIMS[name]["crown"]


@every_operation
def test_rigorous_bounds(name):
    claim = CLAIMS[name]["rigorous"]
    works = {"yes": (True, True), "ibp alone": (True, False), "no": (False, False)}[claim]
    for method, expected in zip((IBP(rigorous=True), Crown(rigorous=True)), works, strict=True):
        if expected:
            check(method, name)
        else:
            with pytest.raises(UnsupportedError, match=name):
                check(method, name)


def grid(box):
    """All points whose coordinates are limits or zero: among them the vertices of every linear piece."""
    ends = [
        torch.stack([low, torch.zeros(()), high])
        for low, high in zip(box.lower[0], box.upper[0], strict=True)
    ]
    return torch.cartesian_prod(*ends)


@every_operation
def test_mixed_integer_programs(name):
    graph, box, _, rows = case(name)
    if CLAIMS[name]["milp"] == "no":
        with pytest.raises(UnsupportedError, match=name):
            Milp(graph, box)
        return
    found = Milp(graph, box).minimise(rows[0], 20.0).lower
    affine = issubclass(KINDS[name], Affine)
    values = least(graph, box, rows)[:1] if affine else graph(grid(box)) @ rows[0]
    assert abs(found - float(values.detach().min())) < 1e-4


@every_operation
def test_lipschitz_constants(name):
    graph, _, members, _ = case(name)
    if CLAIMS[name]["lipschitz"] == "no":
        with pytest.raises(CertusError, match=name):
            lipschitz(graph)
        return
    constant = lipschitz(graph)[graph.output]
    moved = (graph(members[1:]) - graph(members[:-1])).norm(dim=1)
    assert bool((moved <= constant * (members[1:] - members[:-1]).norm(dim=1) + ROUNDING).all())


def test_what_functions_are_written_with():
    """The text of builders, against graphs that they were seen to make."""
    texts = {t: set(written_with(BUILDERS[t].build, t.split(".")[1])) for t in BUILDERS}
    assert texts["aten.relu.default"] == {Relu.__name__}
    assert texts["aten.linear.default"] == {Linear.__name__}
    assert Tanh.__name__ in texts["aten.lstm.input"] and "Softmax" not in texts["aten.lstm.input"]
    assert {"Softmax", "Product"} <= texts["aten.scaled_dot_product_attention.default"]
