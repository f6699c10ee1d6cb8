import itertools
import random

import pytest
import torch
from tests.properties.test_load_property import same
from tests.properties.texts import SHARED, declared, satisfied, text

from certus.properties import load_property
from certus.properties.assemble import assemble
from certus.properties.parser import parse
from certus.properties.problem import Problem
from certus.properties.source import read

VARIABLES = ("X_0", "X_1", "Y_0", "Y_1")
NUMBERS = ("-1", "-0.5", "0", "0.25", "1.0", "5e-1", "(/ 1 4)", "(- 1)", "2")


def random_term(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(VARIABLES + NUMBERS)
    kind = rng.choice("++-*/n")
    if kind == "*":
        parts = [rng.choice(NUMBERS), random_term(rng, depth - 1)]
        rng.shuffle(parts)
        return f"(* {parts[0]} {parts[1]})"
    if kind == "/":
        return f"(/ {random_term(rng, depth - 1)} {rng.choice(['2', '-4', '0.5'])})"
    if kind == "n":
        return f"(- {random_term(rng, depth - 1)})"
    return f"({kind} {' '.join(random_term(rng, depth - 1) for _ in range(rng.randint(1, 3)))})"


def random_atom(rng: random.Random) -> str:
    head = rng.choice(["<=", ">=", "<=", ">=", "<", ">", "="])
    if rng.random() < 0.6:  # the usual spelling
        right = rng.choice((*VARIABLES, "-0.5", "0.25", "1", "-1e0"))
        return f"({head} {rng.choice(VARIABLES)} {right})"
    terms = [random_term(rng, 2) for _ in range(rng.choice([2, 2, 2, 3]))]
    return f"({head} {' '.join(terms)})"


def random_formula(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(["true", "false"]) if rng.random() < 0.05 else random_atom(rng)
    kind = rng.choice(["and", "or", "and", "or", "not", "=>"])
    count = {"not": 1, "=>": rng.randint(2, 3)}.get(kind, rng.randint(1, 3))
    parts = " ".join(random_formula(rng, depth - 1) for _ in range(count))
    return f"({kind} {parts})"


def random_text(rng: random.Random) -> str:
    box = "".join(f"(assert (<= -1 X_{i}))\n(assert (<= X_{i} 1))\n" for i in range(2))
    lines = [f"(assert {random_formula(rng, 3)})\n" for _ in range(rng.randint(1, 3))]
    return declared(2, 2) + box + "".join(lines)


@pytest.mark.parametrize("seed", range(4))
def test_random_formulas_equal_their_evaluation(seed):
    """Points lie on the grid of the constants, so that ties of strict and closed relations occur."""
    rng = random.Random(seed)
    held = 0
    for _ in range(60):
        source = random_text(rng)
        problem = load_property(source)
        grid = [rng.sample([-1.25, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2], 3) for _ in range(4)]
        points = list(itertools.product(*grid))
        z = torch.tensor(points, dtype=torch.float64)
        found = problem.satisfied(z[:, :2], z[:, 2:]).tolist()
        expected = [satisfied(source, list(p[:2]), list(p[2:])) for p in points]
        assert found == expected, source
        held += sum(expected)
    assert held > 200


@pytest.mark.parametrize("seed", range(4))
def test_bulk_and_parser_read_the_same(seed, monkeypatch):
    """Chunks of a few bytes cut the text in every place."""
    rng = random.Random(seed)
    for k in range(40):
        monkeypatch.setattr("certus.properties.bulk._CHUNK", rng.choice([20, 33, 64, 200, 1 << 18]))
        assert_both_ways(random_text(rng) if k % 2 else usual_text(rng))


ALMOST_USUAL = [
    "(<= Y_0 Y_1 0.5)",
    "(<= X_0 0.5 Y_0)",
    "(>= Y_0 Y_0)",
    "(<= Y_0 0.5 )",
    "(<=  Y_0 0.5)",
    "(<=\tY_0 0.5)",
    "( <= Y_0 0.5)",
    "(< Y_0 0.5)",
    "(= Y_0 0.5)",
    "(<= 0.5 Y_0)",
    "(<= Y_0 (- 1))",
    "(<= Y_0 1e-400)",
    "(<= Y_0 0.1000000000000000055511151231257827)",
    "(<= Y_0 9007199254740993)",
    "(>= Y_0 1.7976931348623157e308)",
    "(<= Y_0 4.9e-324)",
    "(or (<= Y_0 1) (<= Y_0 2)) ",
    "(not (<= Y_0 1))",
    "(=> (<= Y_0 1) (<= Y_1 1))",
    "(=> (<= Y_0 1) (<= Y_1 1) (<= Y_0 2))",
    "(and (<= Y_0 1) (or (<= Y_1 1) (<= Y_0 Y_1)) (>= Y_0 0))",
]


@pytest.mark.parametrize("atom", ALMOST_USUAL)
def test_bulk_and_parser_read_the_same_near_the_usual_spelling(atom):
    for body in (f"(assert {atom})", f"(assert (or {atom} (and {atom} (<= Y_1 0))))"):
        assert_both_ways(text(body, 1, 2))


def usual_text(rng: random.Random) -> str:
    """Boxes in a disjunction, as large files have them, with odd spacing here and there."""
    space = lambda: rng.choice([" ", " ", "\n", "", "   ", "\t", ";c (\n"])  # noqa: E731
    number = lambda: rng.choice(  # noqa: E731
        [
            "0",
            "1.0",
            "-0.25",
            repr(rng.random()),
            f"{rng.random():.20f}",
            "1e-3",
            "+.5",
            "2.",
            "-0.0",
        ]
    )
    rows = []
    for _ in range(rng.randint(1, 6)):
        atoms = [
            f"({rng.choice(['<=', '>='])} X_{i} {number()}){space()}" for i in (0, 1) for _ in "ab"
        ]
        atoms.append(f"({rng.choice(['<=', '>='])} Y_0 {rng.choice(['Y_1', number()])})")
        rows.append(f"(and {''.join(atoms)}){space()}")
    body = (
        f"(assert (or {''.join(rows)})){space()}(assert (>= Y_1 -3)){space()}(assert (<= Y_0 3.5))"
    )
    return text(body, 2, 2)


def assert_both_ways(source) -> Problem:
    one, other = (parse(read(source), bulk=bulk) for bulk in (True, False))
    quick, slow = (Problem(p.inputs, p.outputs, assemble(p, 200_000)) for p in (one, other))
    assert same(quick, slow), source
    return quick


SMALL = [
    "acasxu_2023",
    "test",
    "lsnc",
    "linearizenn",
    "safenlp",
    "rl_benchmarks_2022",
    "nn4sys_2023",
]


@pytest.mark.parametrize("family", SMALL)
def test_bulk_and_parser_read_the_same_files(family):
    folder = SHARED / "vnncomp" / family
    if not folder.exists():
        pytest.skip("the shared data are absent")
    files = [p for p in sorted(folder.rglob("*.vnnlib.gz")) if p.stat().st_size < 12_000][:6]
    assert files
    for path in files:
        assert_both_ways(path)
