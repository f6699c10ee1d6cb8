"""Changes of type: exact inside what a type holds, refused or without bounds beyond it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.graph.onnx_models import model, node
from torch import nn

import certus
from certus.graph.whole import LIMITS, Fits, FloorDivide
from certus.relax import relaxations

pytest.importorskip("onnxruntime")
FLOAT, HALF, DOUBLE, BFLOAT = 1, 10, 11, 16
WHOLE = {"uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7}
METHODS = ("ibp", "crown", "alpha-crown", "zonotope")


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def through(*types, dtype=FLOAT):
    """A network that casts its input to one type after another."""
    names = ["x", *(f"v{i}" for i in range(len(types)))]
    nodes = [node("Cast", a, b, to=t) for a, b, t in zip(names, names[1:], types, strict=False)]
    last = [node("MatMul", [names[-1], "w"])]
    weight = np.eye(2, dtype=np.float32 if dtype == FLOAT else np.float64)
    return model(nodes + last, (1, 2), constants={"w": weight}, dtype=dtype)


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        ((HALF, FLOAT), FLOAT),
        ((BFLOAT, FLOAT), FLOAT),
        ((DOUBLE, FLOAT), FLOAT),
        ((FLOAT, DOUBLE), DOUBLE),
        ((WHOLE["int8"], HALF, FLOAT), FLOAT),
    ],
)
def test_casts_between_floating_types_are_refused_by_name(types, dtype):
    with pytest.raises(certus.UnsupportedError, match=r"Cast \((a change of precision|a cast to)"):
        certus.load(through(*types, dtype=dtype))


@pytest.mark.parametrize("kind", WHOLE)
def test_bounds_of_whole_numbers_end_with_their_type(kind):
    """Inside the type bounds hold what onnxruntime computes; a box that leaves it has none."""
    graph = certus.load(through(WHOLE[kind], FLOAT))
    low, top = LIMITS[kind]
    inside = torch.tensor([[min(top, 1e6) - 3.5, max(low, -1e6) + 2.5]])
    for method in METHODS:
        found = certus.bounds(graph, inside, certus.Linf(2.0, clip=None), method=method)
        x = inside + 4 * torch.rand(200, 2) - 2
        values = graph.original(x)
        assert bool(((values >= found.lower) & (values <= found.upper)).all())
        assert float((found.upper - found.lower).max()) <= 8
    for end, label in ((top - 1.5, 0), (low + 0.5, 1)):
        x = torch.tensor([[end * (1 - 1e-6), 0.25]])
        radius = 3 + 5e-6 * abs(end)
        for method in METHODS:
            found = certus.certify(
                graph, x, torch.tensor([label]), certus.Linf(radius, clip=None), method=method
            )
            assert found.verdict[0].value != "verified"


def test_sums_of_whole_numbers_end_with_their_type_too():
    nodes = [
        node("Cast", "x", "a", to=WHOLE["uint8"]),
        node("Add", ["a", "a"], "b"),
        node("Cast", "b", "y", to=FLOAT),
    ]
    graph = certus.load(model(nodes, (1, 2), opset=14))
    assert graph.original(torch.tensor([[200.0, 3.0]])).tolist() == [[144.0, 6.0]]
    assert graph(torch.tensor([[100.0, 3.0]])).tolist() == [[200.0, 6.0]]
    x, y = torch.tensor([[126.5, 3.5]]), torch.tensor([0])
    found = certus.certify(graph, x, y, certus.Linf(0.4, clip=None), method="ibp")
    assert found.verdict[0].value == "verified"
    for radius, finite in ((1.0, True), (3.0, False)):
        bounds = certus.bounds(graph, x, certus.Linf(radius, clip=None), method="ibp")
        assert bool(torch.isfinite(bounds.lower[0, 0])) == finite


@pytest.mark.parametrize("op", ["Div", "Mod", "Pow"])
def test_what_means_something_else_on_whole_numbers_is_refused(op):
    nodes = [
        node("Cast", "x", "a", to=WHOLE["int32"]),
        node(op, ["a", "c"], "b"),
        node("Cast", "b", "y", to=FLOAT),
    ]
    with pytest.raises(certus.UnsupportedError, match=rf"{op} \(on"):
        certus.load(model(nodes, (1, 2), constants={"c": np.array([2, 3], np.int32)}))


def test_constants_beyond_their_type_are_refused():
    casts = [node("Cast", "c", "a", to=WHOLE["int8"]), node("Cast", "a", "b", to=FLOAT)]
    nodes = [*casts, node("Add", ["x", "b"])]
    with pytest.raises(certus.UnsupportedError, match="int8 does not hold"):
        certus.load(model(nodes, (1, 2), constants={"c": np.array([200.0, 3.0], np.float32)}))


def test_a_property_beside_a_wrap_around_stays_open():
    graph = certus.load(through(WHOLE["uint8"], FLOAT))
    box = certus.Box(torch.tensor([[240.0, 0.0]]), torch.tensor([[260.0, 1.0]]))
    for method in METHODS:
        assert not bool(certus.bounds(graph, box, method=method).lower[0, 0] > 100)


def test_whole_numbers_inside_a_module():
    graph = certus.trace(
        Function(lambda x: (40 * x).to(torch.int8).float()).eval(), torch.rand(1, 3)
    )
    x = torch.tensor([[-2.0, 0.01, 2.0]])
    assert torch.equal(graph(x), graph.original(x))
    assert (
        certus.bounds(graph, x, certus.Linf(0.1, clip=None), method="crown").lower.isfinite().all()
    )
    wide = certus.bounds(graph, x, certus.Linf(2.0, clip=None), method="crown")
    assert not bool(torch.isfinite(wide.lower).all())


def test_conditions_add_up_to_a_condition():
    """In torch true and true is true, which the number 2 is not."""
    graph = certus.trace(
        Function(lambda x: ((x > 0) + (x > 1e12)).float()).eval(), torch.rand(1, 3)
    )
    for centre, finite in ((1e11, True), (1e13, False)):
        x = torch.full((1, 3), centre)
        bounds = certus.bounds(graph, x, certus.Linf(1.0, clip=None), method="ibp")
        assert bool(torch.isfinite(bounds.upper).all()) == finite


@pytest.mark.parametrize("divisor", [0.1, -0.1, 0.3, 7.0])
def test_floor_division_is_that_of_the_exact_quotient(divisor):
    """The rounded quotient lies on the wrong side of a whole number at some of these."""
    graph = certus.trace(Function(lambda x: x // divisor).eval(), torch.rand(1, 4))
    x = torch.arange(-40, 41).view(-1, 1).expand(-1, 4) * torch.tensor(abs(divisor)).float()
    x = torch.cat([x, torch.tensor([[0.5, 0.54, 0.58, -0.5]])])
    exact = [
        [Fraction(v) // Fraction(float(np.float32(divisor))) for v in row] for row in x.tolist()
    ]
    assert graph(x).tolist() == exact == graph.original(x).tolist()
    for method in METHODS:
        found = certus.bounds(graph, x, certus.Linf(0.04, clip=None), method=method)
        for share in (-0.04, 0.0, 0.04):
            values = graph.original(x + 0.999 * share)
            assert bool(((values >= found.lower) & (values <= found.upper)).all())


def test_operations_end_where_their_numbers_do():
    inside, across = torch.tensor([[-127.5]]), torch.tensor([[130.0]])
    op = Fits(-128.0, 128.0)
    assert [v.item() for v in op.image(inside, -inside)] == [-127.5, 127.5]
    assert all(v.isnan().all() for v in (*op.image(inside, across), *op.slopes(inside, across)))
    lines = relaxations[Fits](op, (inside, across))
    assert lines.lower_slope.isnan().all() and lines.upper_slope.isnan().all()
    far = torch.tensor([[1e9]])
    assert FloorDivide(torch.tensor(0.1)).image(-far, far)[0].isnan().all()
