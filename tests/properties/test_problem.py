from fractions import Fraction

import pytest
import torch
from tests.properties.texts import text, trees
from torch import Tensor

from certus.bounding import IBP, Crown
from certus.core import ArgumentError
from certus.graph.activation import Relu
from certus.graph.affine import Linear
from certus.graph.builder import Builder
from certus.graph.graph import Graph
from certus.properties import augmented, load_property

THIRD = "(assert (<= X_0 (/ 1 3)))(assert (>= X_0 0.1))"


def net(n: int = 2, k: int = 2, dtype: torch.dtype = torch.float64) -> Graph:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(k, n, generator=generator, dtype=dtype)
    builder = Builder((n,), weight)
    return builder.finish(builder.add(Linear(weight, None), 0), lambda x: x @ weight.T)


def exact_minimum(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The minimum of rows [R, n] over a box, in float64."""
    return torch.where(rows > 0, rows * low, rows * high).sum(dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_regions_are_rounded_outward_and_inner_boxes_inward(dtype):
    (case,) = load_property(text(THIRD)).cases
    outer, inner = case.region((1, 1), dtype), case.inner((1, 1), dtype)
    assert outer.lower.dtype == inner.lower.dtype == dtype
    assert outer.lower.shape == (1, 1, 1)
    assert float(outer.lower) <= float(case.lower) <= float(inner.lower)
    assert float(inner.upper) <= float(case.upper) <= float(outer.upper)
    ends = torch.stack([inner.lower.flatten(), inner.upper.flatten()])
    assert case.contains(ends).all()
    if dtype != torch.float64:
        ends = torch.stack([outer.lower.flatten(), outer.upper.flatten()])
        assert not case.contains(ends).any()  # next to the limits, but outside
        assert case.contains(ends, tolerance=0.01).all()


def test_a_box_without_a_number_of_the_dtype():
    (case,) = load_property(text("(assert (= X_0 0.1))")).cases
    point = case.sample(3, dtype=torch.float32)
    assert torch.equal(point, torch.full((3, 1), 0.1, dtype=torch.float32))
    assert not case.contains(point).any()
    assert case.contains(case.sample(3)).all()


def test_regions_of_problems():
    problem = load_property(text("(assert (or (<= X_0 0) (>= X_1 0.1)))", 2, 2))
    assert [tuple(box.lower.shape) for box in problem.regions] == [(1, 2), (1, 2)]
    batch = problem.region((2, 1), torch.float32)
    assert batch.lower.shape == (2, 2, 1)
    for box, region in zip(problem.cases, batch.lower, strict=True):
        assert torch.equal(box.region((2, 1), torch.float32).lower[0], region)
    attached = problem.attached(net())
    assert attached.regions[0].lower.dtype == torch.float64
    assert load_property(text("(assert true)", 2, 2), net()).graph is not None
    with pytest.raises(ArgumentError, match="2 inputs and 2 outputs, the network has 3 and 2"):
        problem.attached(net(3))
    with pytest.raises(ArgumentError, match="shape"):
        problem.region((3,))
    assert problem.select([1]).cases == (problem.cases[1],)


def test_satisfied_is_exact():
    """Decisions on the edge of a sum equal rational arithmetic on the same numbers."""
    source = text("(assert (<= (+ (* 0.1 Y_0) (* 0.2 Y_1) (* 0.7 X_0)) 0.3))", 1, 2)
    problem = load_property(source)
    rows, of_inputs, bounds = problem.cases[0].conditions.dense()
    numbers = [Fraction(v) for v in (*rows[0].tolist(), *of_inputs[0].tolist())]
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(400, 3, generator=generator, dtype=torch.float64)
    z[:, 2] = (bounds - z[:, :2] @ rows[0]) / of_inputs[0]  # within rounding of equality
    z = z[z[:, 2].abs() <= 1]
    expected = [
        sum(a * Fraction(v) for a, v in zip(numbers, point, strict=True)) <= Fraction(float(bounds))
        for point in z.tolist()
    ]
    found = problem.satisfied(z[:, 2:], z[:, :2]).tolist()
    assert found == expected
    assert 20 < sum(expected) < len(expected) - 20
    with_float64 = (z[:, :2] @ rows[0] + z[:, 2] * of_inputs[0] <= bounds).tolist()
    assert with_float64 != expected  # what plain sums would have said


def test_tolerance_and_bad_values():
    problem = load_property(text("(assert (>= Y_0 Y_1))", 1, 2))
    x = torch.zeros(1)
    assert problem.satisfied(x, torch.tensor([1.0, 1.0])).item()
    assert not problem.satisfied(x, torch.tensor([1.0, 1.001])).item()
    assert problem.satisfied(x, torch.tensor([1.0, 1.001]), tolerance=0.01).item()
    assert not problem.satisfied(x + 1.001, torch.tensor([1.0, 1.0])).item()
    assert problem.satisfied(x + 1.001, torch.tensor([1.0, 1.0]), tolerance=0.01).item()
    for bad in (float("nan"), float("inf")):
        assert not problem.satisfied(x, torch.tensor([bad, 0.0])).item()
        assert not problem.satisfied(x + bad, torch.tensor([1.0, 0.0]), tolerance=1.0).item()
    assert not problem.satisfied(x, torch.tensor([0.0, -float("inf")])).item()
    with pytest.raises(ArgumentError, match="y must hold 2 numbers"):
        problem.satisfied(x, torch.zeros(3))
    with pytest.raises(ArgumentError, match="2 inputs do not fit 1 outputs"):
        problem.satisfied(torch.zeros(2, 1), torch.zeros(1, 2))
    nothing = load_property(text("(assert false)"))
    assert nothing.satisfied(torch.zeros(4, 1), torch.zeros(4, 1)).tolist() == [False] * 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_specification_rows_add_up_to_the_exact_coefficients(dtype):
    problem = load_property(
        text(
            "(assert (or (<= (+ (* 0.1 Y_0) Y_1) 1) (and (<= Y_0 Y_1) (<= (/ Y_1 3) X_0 Y_0))))",
            1,
            2,
        )
    )
    (case,) = problem.cases
    spec = case.specification(dtype, inputs=True)
    assert spec.rows.dtype == dtype
    total = torch.zeros(len(spec.thresholds), 3, dtype=torch.float64)
    total.index_add_(0, spec.atom_of_row, spec.rows[0].double())
    rows, of_inputs, bounds = case.conditions.dense()
    assert torch.equal(total, torch.cat([rows, of_inputs], dim=1))
    assert torch.equal(spec.thresholds, bounds)
    assert (spec.rows.shape[1] > len(bounds)) == (dtype != torch.float64)


def test_coefficients_outside_the_dtype_are_refused():
    (case,) = load_property(text("(assert (<= (+ (* 1e60 Y_0) Y_1) 1))", 1, 2)).cases
    case.specification(torch.float64)
    with pytest.raises(ArgumentError, match=r"outside the range of torch.float32"):
        case.specification(torch.float32)


REFUTED = [
    # body, lower bounds of the rows' values -> refuted
    ("(assert (<= Y_0 1))", [1.5], True),
    ("(assert (<= Y_0 1))", [1.0], False),
    ("(assert (<= Y_0 1))", [float("nan")], False),
    ("(assert (<= Y_0 1))", [float("inf")], False),
    ("(assert (< Y_0 1))", [1.0], False),
    ("(assert (and (<= Y_0 1) (<= Y_1 1)))", [0.0, 1.5], True),
    ("(assert (and (<= Y_0 1) (<= Y_1 1)))", [float("nan"), 1.5], True),
    ("(assert (or (<= Y_0 1) (<= Y_1 1)))", [0.0, 1.5], False),
    ("(assert (or (<= Y_0 1) (<= Y_1 1)))", [float("nan"), 1.5], False),
    ("(assert (or (<= Y_0 1) (<= Y_1 1)))", [1.5, 1.5], True),
    ("(assert (or (<= Y_0 1) true))", [1.5], False),
    ("(assert true)", [], False),
]


@pytest.mark.parametrize(("body", "lower", "expected"), REFUTED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_refuted(body, lower, expected, dtype):
    (case,) = load_property(text(body, 1, 2)).cases
    bounds = torch.tensor(lower, dtype=dtype)
    assert case.refuted(bounds) is expected
    assert case.refuted(bounds.unsqueeze(0)) is expected
    with pytest.raises(ArgumentError, match="lower bounds"):
        case.refuted(torch.zeros(len(lower) + 1, dtype=dtype))


@pytest.mark.parametrize("inputs", [True, False])
def test_refutation_is_sound_and_not_vacuous(inputs):
    """Linear maps: exact minima are known, so what is refuted must have no solution on a grid."""
    graph, generator = net(), torch.Generator().manual_seed(3)
    weight = graph.nodes[1].op.weight
    grid = torch.linspace(-1, 1, 41, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    outcomes = {True: 0, False: 0}
    for _ in range(120):
        a, b, c, d, t = (torch.randn(5, generator=generator) * 2).tolist()
        t -= 5.0
        body = f"(assert (<= (+ (* {a} Y_0) (* {b} Y_1) (* {c} X_0) (* {d} X_1)) {t}))"
        (case,) = load_property(text(body, 2, 2)).cases
        rows = case.specification(inputs=inputs).rows[0]
        full = rows[:, :2] @ weight + (rows[:, 2:] if inputs else 0)
        lower = exact_minimum(full, case.lower, case.upper) - 1e-12
        refuted = case.refuted(lower, inputs=inputs)
        outcomes[refuted] += 1
        if refuted:
            assert not case.holds(points, graph(points)).any()
        elif inputs:
            assert case.holds(points, graph(points)).any() or t < float(lower) + 0.5
    assert min(outcomes.values()) >= 10


def test_input_part_over_outputs_only_is_a_relaxation():
    (case,) = load_property(text("(assert (<= (+ Y_0 (* 3 X_0)) 0.7))")).cases
    spec = case.specification()
    assert torch.equal(spec.rows, torch.ones(1, 1, 1, dtype=torch.float64))
    assert 3.7 <= float(spec.thresholds) < 3.7 + 1e-12
    assert not case.refuted(torch.tensor([3.7 - 1e-9], dtype=torch.float64))
    assert case.refuted(torch.tensor([3.7 + 1e-9], dtype=torch.float64))


def test_select_keeps_what_is_not_refuted():
    atoms = "".join(f"(and (<= Y_0 {i}) (> Y_1 (+ {i} X_0)))" for i in range(6))
    (case,) = load_property(text(f"(assert (or {atoms}))", 1, 2)).cases
    spec = case.specification()
    lower = torch.full((1, spec.rows.shape[1]), -9.0).double()
    lower[0, spec.atom_of_row[spec.conjunction_of_atom[spec.atom_of_row] == 2]] = 9.0
    left = ~spec.conjunctions(lower)[0]
    assert left.tolist() == [True, True, False, True, True, True]
    kept = case.select(left)
    assert len(kept.conditions) == 5
    z = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double() * 3
    x, y = z[:, :1].clamp(-1, 1), z[:, 1:]
    parts = case.conditions.holds(x, y)
    assert torch.equal(kept.conditions.holds(x, y), parts[:, left])
    on_the_edge = torch.tensor([[4.0, 4.0]], dtype=torch.float64)
    assert not kept.conditions.holds(torch.zeros(1, 1).double(), on_the_edge)[0, 3]
    assert torch.equal(case.select(torch.tensor([4, 0])).conditions.holds(x, y), parts[:, [4, 0]])


def test_counterexample_text_reads_back():
    problem = load_property(text("(assert (<= Y_0 0))", 2, 1))
    x = torch.tensor([[0.1, -1e-8]])
    y = torch.tensor([[1 / 3]], dtype=torch.float64)
    written = problem.counterexample(x, y)
    (pairs,) = trees(written)
    assert [name for name, _ in pairs] == ["X_0", "X_1", "Y_0"]
    values = torch.tensor([float(v) for _, v in pairs], dtype=torch.float64)
    assert torch.equal(values[:2].float(), x[0])
    assert torch.equal(values[2:], y[0])
    with pytest.raises(ArgumentError, match="2 inputs and 1 outputs"):
        problem.counterexample(x[:, :1], y)


def test_samples_lie_in_the_boxes_and_depend_on_the_seed():
    problem = load_property(text("(assert (or (<= X_0 -0.5) (>= X_0 0.5)))", 2, 1))
    for dtype in (torch.float32, torch.float64):
        x = problem.sample(11, 3, dtype)
        assert x.shape == (11, 2)
        assert problem.cases[0].contains(x).sum() == 6
        assert problem.cases[1].contains(x).sum() == 5
        assert torch.equal(x, problem.sample(11, 3, dtype))
        assert not torch.equal(x, problem.sample(11, 4, dtype))


def test_augmented_graph_appends_the_input():
    graph = net(3, 2)
    both = augmented(graph)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.cat([graph(x), x], dim=1)
    assert both.output_shape == (5,)
    assert torch.equal(both(x), expected)
    assert torch.equal(both.original(x), expected)


@pytest.mark.parametrize("method", [IBP(), Crown()], ids=["ibp", "crown"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bound_methods_refute_only_what_has_no_solution(method, dtype):
    """Conditions on outputs and inputs together, over a network, an augmented one, and dense samples."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(a, b, generator=generator).to(dtype) for a, b in ((8, 2), (2, 8)))
    builder = Builder((2,), first)
    hidden = builder.add(Relu(), builder.add(Linear(first, None), 0))
    graph = builder.finish(builder.add(Linear(second, None), hidden), lambda x: x)
    problem = load_property(text("(assert true)", 2, 2))
    x = problem.sample(4000, 0, dtype)
    y = graph(x)
    counts = {True: 0, False: 0}
    for threshold in torch.linspace(-60, 4, 17).tolist():
        body = f"(assert (<= (+ (* 0.1 Y_0) Y_1 (* 3 X_0) (* -0.7 X_1)) {threshold}))"
        (case,) = load_property(text(body, 2, 2)).cases
        region = case.region(dtype=dtype)
        plain = method(graph, region, case.specification(dtype).rows).lower
        joint = method(augmented(graph), region, case.specification(dtype, inputs=True).rows).lower
        answers = case.refuted(plain - 1e-4), case.refuted(joint - 1e-4, inputs=True)
        for refuted in answers:
            counts[refuted] += 1
            assert not (refuted and case.holds(x, y).any())
        assert answers[1] or not answers[0]  # the joint bounds see more
    assert min(counts.values()) >= 4


def test_the_part_in_the_inputs_is_relieved_in_full():
    """In rational arithmetic: what many inputs can take off the left side, rounding included."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        numbers = torch.randn(40, generator=generator).tolist()
        parts = " ".join(f"(* {number} X_{i})" for i, number in enumerate(numbers))
        (case,) = load_property(text(f"(assert (<= (+ Y_0 {parts}) 0.3))", 40, 1)).cases
        _, of_inputs, bounds = case.conditions.dense()
        ends = zip(of_inputs[0].tolist(), case.lower.tolist(), case.upper.tolist(), strict=True)
        least = sum(
            min(Fraction(c) * Fraction(low), Fraction(c) * Fraction(high)) for c, low, high in ends
        )
        (threshold,) = case.specification().thresholds.tolist()
        assert Fraction(float(bounds)) - least <= Fraction(threshold)
        assert threshold == pytest.approx(float(Fraction(float(bounds)) - least))


def test_rows_of_one_atom_are_added_without_rounding_up():
    """A float64 sum of these bounds is 1, above the threshold; exactly they stay below it."""
    (case,) = load_property(
        text("(assert (<= (+ (* 0.1 Y_0) Y_1) 0.9999999999999999))", 1, 2)
    ).cases
    spec = case.specification(torch.bfloat16)
    assert len(spec.atom_of_row) >= 5 and spec.thresholds.tolist() == [1 - 2.0**-53]
    lower = torch.full((len(spec.atom_of_row),), -1.5 * 2.0**-55, dtype=torch.bfloat16)
    lower[0] = 1.0
    assert sum(map(Fraction, lower.tolist())) < Fraction(spec.thresholds.item())
    assert not case.refuted(lower)
    lower[0] = 1.0078125
    assert case.refuted(lower)
