"""The table of mutants fits the sources; the slow test runs it."""

import ast
import json
import subprocess
import sys
from functools import cache

import pytest
from tests.mutants.table import ROOT, mutants

TABLE = mutants()
LEAST = 60  # that are no equivalents


@cache
def names(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: f"{mutant.file}:{mutant.line}")
def test_fragments_stand_once_and_their_tests_exist(mutant):
    assert mutant.text.count(mutant.old) == 1, "write a fragment that stands once"
    assert mutant.old != mutant.new and mutant.why
    ast.parse(mutant.mutated)
    assert bool(mutant.tests) != bool(mutant.equivalent), "a mutant has tests, or is equivalent"
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file() and (not name or name in names(file)), test


def test_the_table_is_long_enough_and_says_nothing_twice():
    assert sum(not mutant.equivalent for mutant in TABLE) >= LEAST
    assert len({mutant.mutated for mutant in TABLE}) == len(TABLE)


# A package with one function, double(x) = 2 * x; what stands in its place; a test; what becomes of it.
CASES = [
    ("3 * x", "def test_it(): assert double(2) == 4", "failed"),
    ("3 * x", "def test_it(): assert double(2) > 0", "passed"),
    ("3 * y", "def test_it(): assert double(2) == 4", "broken"),
    ("3 *", "def test_it(): assert double(2) == 4", "broken"),
    ("3 * x", "from certus import nothing\ndef test_it(): pass", "broken"),
    ("3 * x", "", "empty"),
    ("3 * x", "import time\ndef test_it(): time.sleep(0 if double(2) == 4 else 60)", "hung"),
]
JUDGE = """
import json, sys
from pathlib import Path
from tests.mutants import table, trial
place = Path(sys.argv[1])
table.SOURCE = place / "source"
todo = []
for i, (new, _, kind) in enumerate(json.loads(sys.argv[2])):
    mutant = table.Mutant(file="__init__.py", old="2 * x", new=new, why="")
    limit = 5.0 if kind == "hung" else 120.0
    todo.append(trial.Trial((str(place / f"test_{i}.py"),), mutant, limit))
found = {o.trial.tests: o.kind for o in trial.trials(todo, table.SOURCE, place / "work", 2)}
print("KINDS", *(found[one.tests] for one in todo))
"""


def test_only_a_red_test_kills(tmp_path):
    package = tmp_path / "source" / "certus"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def double(x):\n    return 2 * x\n")
    for i, (_, test, _) in enumerate(CASES):
        (tmp_path / f"test_{i}.py").write_text(f"from certus import double\n{test}\n")
    command = [sys.executable, "-c", JUDGE, str(tmp_path), json.dumps(CASES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    kinds = done.stdout.partition("KINDS ")[2].split()
    assert kinds == [kind for _, _, kind in CASES], done.stdout + done.stderr


@pytest.mark.slow
def test_every_mutant_is_killed():
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
