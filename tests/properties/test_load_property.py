import gzip
from itertools import pairwise

import pytest
import torch
from tests.properties.texts import text

from certus.core import ArgumentError, UnsupportedError
from certus.properties import load_property

# body, n, k -> for every case: (lower, upper, conjunctions), each conjunction a list of (A, C, b, strict).
BOXES = [
    ("(assert (<= X_0 0.5))(assert (<= Y_0 0))", 1, [([-1.0], [0.5])]),
    ("(assert (= X_0 0.25))", 1, [([0.25], [0.25])]),
    ("(assert (and (<= 0 X_0) (>= 0.5 X_0)))", 1, [([0.0], [0.5])]),
    ("(assert (<= 0 X_0 0.5))", 1, [([0.0], [0.5])]),
    ("(assert (<= (* 2 X_0) 1))", 1, [([-1.0], [0.5])]),
    ("(assert (<= (* -3 X_0) 1))", 1, [([-1 / 3], [1.0])]),
    ("(assert (<= X_0 (/ 1 3)))", 1, [([-1.0], [1 / 3])]),
    ("(assert (<= (/ X_0 (- 4)) (- 0.125)))", 1, [([0.5], [1.0])]),
    ("(assert (<= (+ X_0 X_0 1) (- 2 X_0 0.25)))", 1, [([-1.0], [0.25])]),
    ("(assert (not (>= X_0 0.5)))", 1, [([-1.0], [0.5])]),
    ("(assert (>= X_0 2e-1))(assert (<= X_0 +.5E0))", 1, [([0.2], [0.5])]),
    ("(assert (>= X_0 0.75))(assert (<= X_0 0.25))", 1, []),
    ("(assert false)", 1, []),
    ("(assert (or (<= X_0 -0.5) (>= X_0 0.5)))", 1, [([-1.0], [-0.5]), ([0.5], [1.0])]),
    ("(assert (or (<= X_0 -0.5) (>= X_0 2)))", 1, [([-1.0], [-0.5])]),
    ("(assert (or (<= X_0 0) (and (<= X_0 0) (<= Y_0 1))))", 1, [([-1.0], [0.0])]),
    ("(assert (or (<= X_0 0) (<= X_1 0)))", 2, [([-1, -1], [0, 1]), ([-1, -1], [1, 0])]),
    (
        "(assert (or (<= X_0 0) (>= X_0 0)))(assert (or (<= X_1 0) (>= X_1 0)))",
        2,
        [([-1, -1], [0, 0]), ([-1, 0], [0, 1]), ([0, -1], [1, 0]), ([0, 0], [1, 1])],
    ),
    ("(assert (=> (<= X_0 0) (<= X_0 -0.5)))", 1, [([0.0], [1.0]), ([-1.0], [-0.5])]),
]

CONDITIONS = [
    ("(assert (<= Y_0 2))", [[([1, 0], [0], 2, False)]]),
    ("(assert (>= Y_0 2))", [[([-1, 0], [0], -2, False)]]),
    ("(assert (< Y_0 2))", [[([1, 0], [0], 2, True)]]),
    ("(assert (not (<= Y_0 2)))", [[([-1, 0], [0], -2, True)]]),
    ("(assert (>= Y_0 Y_1))", [[([-1, 1], [0], 0, False)]]),
    ("(assert (<= (- Y_0 Y_1) 0))", [[([1, -1], [0], 0, False)]]),
    ("(assert (<= (* 3 (- Y_1 Y_0)) 0))", [[([-1, 1], [0], 0, False)]]),
    ("(assert (= Y_0 1))", [[([1, 0], [0], 1, False), ([-1, 0], [0], -1, False)]]),
    ("(assert (not (= Y_0 1)))", [[([-1, 0], [0], -1, True)], [([1, 0], [0], 1, True)]]),
    ("(assert (<= (+ (* 2 Y_0) Y_1) 3))", [[([2, 1], [0], 3, False)]]),
    ("(assert (>= (+ Y_0 X_0 1) (* 0.5 Y_1)))", [[([-1, 0.5], [-1], 1, False)]]),
    ("(assert (<= Y_0 X_0))", [[([1, 0], [-1], 0, False)]]),
    ("(assert (< X_0 1))", [[([0, 0], [1], 1, True)]]),
    ("(assert (<= Y_0 Y_0))", [[]]),
    ("(assert true)", [[]]),
    (
        "(assert (or (and (<= Y_0 1)) (and (<= Y_1 2))))",
        [[([1, 0], [0], 1, False)], [([0, 1], [0], 2, False)]],
    ),
    (
        "(assert (or (<= Y_0 1) (<= Y_1 2)))(assert (<= Y_0 5))",
        [
            [([1, 0], [0], 5, False), ([1, 0], [0], 1, False)],
            [([1, 0], [0], 5, False), ([0, 1], [0], 2, False)],
        ],
    ),
    ("(assert (not (or (<= Y_0 1) (<= Y_1 2))))", [[([-1, 0], [0], -1, True), ([0, -1], [0], -2, True)]]),
    (
        "(assert (not (and (<= Y_0 1) (not (<= Y_1 2)))))",
        [[([-1, 0], [0], -1, True)], [([0, 1], [0], 2, False)]],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "n", "expected"), BOXES)
def test_boxes(body, n, expected):
    problem = load_property(text(body, n))
    assert (problem.inputs, problem.outputs) == (n, 1)
    found = [(case.lower.tolist(), case.upper.tolist()) for case in problem.cases]
    assert found == [([*map(float, low)], [*map(float, high)]) for low, high in expected]


@pytest.mark.parametrize(("body", "expected"), CONDITIONS)
def test_conditions(body, expected):
    (case,) = load_property(text(body, 1, 2)).cases
    rows, of_inputs, bounds = case.conditions.dense()
    atoms = list(
        zip(
            *(t.tolist() for t in (rows, of_inputs, bounds, case.conditions.strict)),
            strict=True,
        )
    )
    starts = case.conditions.conjunctions.tolist()
    found = [atoms[a:b] for a, b in pairwise(starts)]
    assert found == [
        [([*map(float, a)], [*map(float, c)], float(b), s) for a, c, b, s in conjunction]
        for conjunction in expected
    ]


def test_disjuncts_with_one_box_are_one_case():
    body = "".join(
        f"(and (>= X_0 {i % 2}.0) (<= X_0 {i % 2}.5) (<= Y_0 {i}))\n" for i in range(4000)
    )
    problem = load_property(text(f"(assert (or {body}))", box=False))
    assert [len(case.conditions) for case in problem.cases] == [2000, 2000]
    assert problem.cases[1].conditions.bounds[:3].tolist() == [1.0, 3.0, 5.0]


def test_other_forms_of_the_text():
    plain = load_property(text("(assert (<= Y_0 0))"))
    spelled = load_property(
        "\ufeff; a comment ( with a parenthesis\n(set-logic QF_LRA)\n(set-info :source |a ; ( b|)\n"
        '(set-info :status "x)")(vnnlib-version <1.0>)'
        "(declare-fun X_0 () Real)(declare-fun\n\tY_0 ( ) Real)\r\n(assert\n(and\t(<=  X_0 ; here\n 1.0 )"
        "(>= X_0\n-1)( <= Y_0 0.)))(check-sat)"
    )
    assert same(plain, spelled)


def test_files(tmp_path):
    content = text("(assert (<= Y_0 0))").encode()
    (tmp_path / "a.vnnlib").write_bytes(content)
    (tmp_path / "b.vnnlib.gz").write_bytes(gzip.compress(content))
    (tmp_path / "c.vnnlib").write_bytes(gzip.compress(content))
    for name in ("a.vnnlib", "b.vnnlib.gz", "c.vnnlib"):
        assert same(load_property(tmp_path / name), load_property(content.decode()))
        assert same(load_property(str(tmp_path / name)), load_property(content.decode()))


@pytest.mark.parametrize(("side", "bound"), [("lower", "(<= X_1 0)"), ("upper", "(>= X_1 0)")])
def test_unbounded_inputs_are_refused_by_name(side, bound):
    body = f"(assert (<= 0 X_0 1))(assert {bound})(assert (<= Y_0 0))"
    with pytest.raises(UnsupportedError, match=f"X_1 has no {side} bound"):
        load_property(text(body, 2, box=False))
    # a disjunct that is empty anyway needs no bounds
    body = (
        f"(assert (or (and (<= X_0 0) (>= X_0 1)) (and (<= 0 X_0 1) (<= 0 X_1 1))))(assert {bound})"
    )
    assert len(load_property(text(body, 2, box=False)).cases) == 1


def test_expansion_is_limited():
    body = "\n".join("(assert (or (<= Y_0 0) (>= Y_0 1)))" for _ in range(40))
    with pytest.raises(UnsupportedError, match=r"expands to .* conjunctions .* limit of 200,000"):
        load_property(text(body))
    with pytest.raises(UnsupportedError, match="limit of 7"):
        load_property(text("\n".join(body.splitlines()[:3])), limit=7)
    assert (
        len(load_property(text("\n".join(body.splitlines()[:3])), limit=8).cases[0].conditions) == 8
    )
    with pytest.raises(ArgumentError, match="limit"):
        load_property(text(body), limit=0)


@pytest.mark.parametrize("wrap", ["(and {})", "(or {})", "(not {})", "(or false {})"])
@pytest.mark.parametrize("bulk_atom", ["(<= Y_0 0)", "( <= Y_0 0)"])
def test_deep_nesting_is_read(wrap, bulk_atom):
    depth = 4000
    left, right = wrap.split("{}")
    deep = left * depth + bulk_atom + right * depth
    assert same(
        load_property(text(f"(assert {deep})")), load_property(text(f"(assert {bulk_atom})"))
    )


def same(a, b) -> bool:
    """Whether two problems are equal number by number."""
    if (a.inputs, a.outputs, len(a.cases)) != (b.inputs, b.outputs, len(b.cases)):
        return False
    names = ("columns", "values", "starts", "bounds", "strict", "conjunctions")
    return all(
        torch.equal(p.lower, q.lower)
        and torch.equal(p.upper, q.upper)
        and all(torch.equal(getattr(p.conditions, n), getattr(q.conditions, n)) for n in names)
        for p, q in zip(a.cases, b.cases, strict=True)
    )
